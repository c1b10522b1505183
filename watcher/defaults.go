package watcher

import "strings"

// defaultTypes are the file name extensions of the default document types, which count if there is no include.
var defaultTypes = map[string]bool{
	"txt": true, "md": true, "rst": true, "html": true, "pdf": true, "doc": true, "docx": true, "odt": true, "rtf": true, "ppt": true, "pptx": true,
	"xls": true, "xlsx": true, "ods": true, "csv": true, "tsv": true, "json": true, "xml": true,
}

func hasDefaultType(key string) bool {
	dot := strings.LastIndexByte(key, '.')
	return dot >= 0 && defaultTypes[strings.ToLower(key[dot+1:])]
}

// An exclusion is a pattern of names that are left out unless a glob names them. Its pattern is plain text with at most one star.
// Case does not matter.
type exclusion struct {
	pattern string
	dir     bool
	why     string
}

func (x *exclusion) verdict() verdict {
	return verdict{out: true, reason: "the default exclusion of " + x.why, rule: x.pattern, place: "default"}
}

// The default exclusions, by kind.
var (
	fileExclusions = newExclusions(false, []kindOfExclusion{
		{"secrets", []string{".env*", "*.pem", "*.key", "id_*", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.ppk", ".netrc", "_netrc",
			".pgpass", ".htpasswd", ".git-credentials"}},
		{"version control", []string{".git", ".gitignore", ".gitattributes", ".gitmodules", ".gitkeep", ".hgignore", ".hgtags", ".hgsub",
			".hgsubstate", ".cvsignore"}},
		{"editor files", []string{"*~", "*.swp", "*.swo", "*.swx", "#*#", ".#*", "*.kate-swp", ".netrwhist", ".goutputstream-*"}},
		{"system files", []string{".ds_store", "._*", ".localized", "thumbs.db", "ehthumbs.db", "desktop.ini", ".directory", ".nfs*", ".fuse_hidden*"}},
		{"office lock files", []string{"~$*", ".~lock.*"}},
		{"partial downloads", []string{"*.part", "*.partial", "*.crdownload", "*.download", "*.filepart", "*.opdownload", "*.aria2", "*.tmp",
			".syncthing.*", "~syncthing~*"}},
		{"kbsync's own files", []string{".kbsync*"}},
	})
	directoryExclusions = newExclusions(true, []kindOfExclusion{
		{"secrets", []string{".ssh", ".gnupg", ".aws"}},
		{"version control", []string{".git", ".hg", ".svn", ".bzr", ".jj", ".sl", ".pijul", "_darcs", "cvs"}},
		{"editor files", []string{".idea", ".vscode", ".vs"}},
		{"system files", []string{"__macosx", ".trash", ".trashes", ".trash-*", "$recycle.bin", "system volume information", ".spotlight-v100",
			".fseventsd", ".temporaryitems", ".documentrevisions-v100", "lost+found", "@eadir"}},
		{"partial downloads", []string{".stfolder", ".stversions"}},
	})
)

type kindOfExclusion struct {
	why      string
	patterns []string
}

// exclusions is an index of exclusions by name.
type exclusions struct {
	names   map[string]*exclusion
	endings map[string]*exclusion // by the extension
	others  []*exclusion
}

func newExclusions(dir bool, kinds []kindOfExclusion) *exclusions {
	set := &exclusions{names: map[string]*exclusion{}, endings: map[string]*exclusion{}}
	for _, kind := range kinds {
		for _, pattern := range kind.patterns {
			x := &exclusion{pattern: pattern, dir: dir, why: kind.why}
			if ending, ok := strings.CutPrefix(pattern, "*."); ok {
				set.endings[ending] = x
			} else if strings.Contains(pattern, "*") {
				set.others = append(set.others, x)
			} else {
				set.names[pattern] = x
			}
		}
	}
	return set
}

// find returns the exclusion of a name, or nil.
func (s *exclusions) find(name string) *exclusion {
	name = strings.ToLower(name)
	if x := s.names[name]; x != nil {
		return x
	}
	if dot := strings.LastIndexByte(name, '.'); dot >= 0 {
		if x := s.endings[name[dot+1:]]; x != nil {
			return x
		}
	}
	for _, x := range s.others {
		before, after, _ := strings.Cut(x.pattern, "*")
		if len(name) >= len(before)+len(after) && strings.HasPrefix(name, before) && strings.HasSuffix(name, after) {
			return x
		}
	}
	return nil
}
