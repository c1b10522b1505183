package watcher

import (
	"slices"
	"strings"
)

// defaultTypes are the file name extensions of the default document types, which count if there is no include.
var defaultTypes = map[string]bool{
	"txt": true, "md": true, "rst": true, "html": true, "pdf": true, "doc": true, "docx": true, "odt": true, "rtf": true, "ppt": true, "pptx": true,
	"xls": true, "xlsx": true, "ods": true, "csv": true, "tsv": true, "json": true, "xml": true,
}

func hasDefaultType(key string) bool {
	dot := strings.LastIndexByte(key, '.')
	return dot >= 0 && defaultTypes[strings.ToLower(key[dot+1:])]
}

// An exclusion is a pattern of names that are left out unless a glob names them. Case does not matter.
type exclusion struct {
	pattern string
	tokens  []token
	dir     bool
	why     string
}

func (x *exclusion) verdict() verdict {
	return verdict{out: true, kind: x.why, reason: "the default exclusion of " + x.why, rule: x.pattern, place: "default"}
}

// matches reports whether the pattern matches a name in lower case.
func (x *exclusion) matches(name string) bool {
	return x.pattern == name || matchWildcards(x.tokens, name, ofBytes)
}

// A DefaultExclusion is a kind of files and directories that are left out unless an include names them.
type DefaultExclusion struct {
	// Kind is the kind as counts and explanations show it, such as "version control", and Why the reason to leave it out.
	Kind, Why string
	// Files and Directories are patterns of names, in lower case: * stands for any characters, [0-9] for a digit.
	Files, Directories []string
}

// DefaultExclusions returns the default exclusions. A name that several patterns match is of the kind of the most specific one.
func DefaultExclusions() []DefaultExclusion {
	return append(harmfulExclusions(), uselessExclusions()...)
}

// harmfulExclusions are those of documents that would give away secrets, or contradict the documents of the root.
func harmfulExclusions() []DefaultExclusion {
	return []DefaultExclusion{
		{
			Kind: "secrets", Why: "Keys and passwords must never become answers.",
			Files: []string{
				".env*", "*.pem", "*.key", "id_*", "*.p12", "*.pfx", "*.p8", "*.jks", "*.keystore", "*.kdb", "*.kdbx", "*.ppk", "*.ovpn", ".netrc", "_netrc",
				".pgpass", ".htpasswd", ".git-credentials", ".npmrc", ".pypirc", "credentials", "credentials.json", "credentials.csv", "*_credentials.csv",
				"*_accesskeys.csv", "rootkey.csv", "client_secret*.json", "*service-account*.json", "*service_account*.json", "*serviceaccount*.json",
				"*firebase-adminsdk*.json", "application_default_credentials.json", "secrets.json", "secrets.xml", "token.json", "kubeconfig",
				"*.kubeconfig", "*.tfstate", "*.tfvars",
			},
			Directories: []string{".ssh", ".gnupg", ".aws", ".azure", ".gcloud", ".kube", ".docker", ".password-store"},
		},
		{
			Kind: "version control", Why: "The files of version control are not documents, and hold old versions.",
			Files: []string{
				".git", ".gitignore", ".gitattributes", ".gitmodules", ".gitkeep", ".hgignore", ".hgtags", ".hgsub", ".hgsubstate", ".cvsignore",
			},
			Directories: []string{".git", ".hg", ".svn", ".bzr", ".jj", ".sl", ".pijul", "_darcs", "cvs"},
		},
		{
			Kind: "conflict copies", Why: "A conflict copy of Syncthing, Nextcloud, ownCloud, Dropbox, OneDrive, Seafile or rclone contradicts the document beside it.",
			Files: []string{
				"*.sync-conflict-*", "*(*conflicted copy*)*", "*(*case conflict*)*", "*(*unicode encoding conflict*)*", "*(selective sync conflict*)*",
				"*-safebackup-[0-9]*", "*_conflict-[0-9]*", "*(sfconflict *)*", "*.conflict[0-9]", "*.conflict[0-9].*", "*.conflict[0-9][0-9].*",
			},
			Directories: []string{
				"*.sync-conflict-*", "*(*conflicted copy*)*", "*(*case conflict*)*", "*(*unicode encoding conflict*)*", "*(selective sync conflict*)*",
			},
		},
		{
			Kind: "deleted and old versions", Why: "Recycle bins and snapshots would bring back what was deleted or corrected.",
			Directories: []string{
				"#recycle", "@recycle", "$recycle.bin", "recycler", ".recycle", ".trash", ".trashes", ".trash-*", "network trash folder", "#snapshot",
				"@recently-snapshot", "@gmt-*", ".snapshot", ".snapshots", "~snapshot", ".zfs", ".stversions", ".dropbox.cache", ".documentrevisions-v100",
			},
		},
		{
			Kind: "dependencies", Why: "Packages and virtual environments hold the documents of other projects.",
			Directories: []string{"node_modules", "bower_components", "site-packages", "venv", ".venv", "virtualenv", "__pycache__"},
		},
		{
			Kind: "settings of programs", Why: "Programs keep their settings beside the documents, with access keys among them.",
			Directories: []string{".obsidian", ".config", ".local", ".cache", ".docusaurus", ".terraform"},
		},
	}
}

// uselessExclusions are those of files that programs write for themselves.
func uselessExclusions() []DefaultExclusion {
	return []DefaultExclusion{
		{
			Kind: "editor files", Why: "Editors write these files and folders for themselves.",
			Files:       []string{"*~", "*.swp", "*.swo", "*.swx", "#*#", ".#*", "*.kate-swp", ".netrwhist", ".goutputstream-*"},
			Directories: []string{".idea", ".vscode", ".vs"},
		},
		{
			Kind: "system files", Why: "Operating systems and file servers write these files and folders for themselves.",
			Files: []string{".ds_store", "._*", ".localized", "thumbs.db", "ehthumbs.db", "desktop.ini", ".directory", ".nfs*", ".fuse_hidden*"},
			Directories: []string{
				"__macosx", "system volume information", ".spotlight-v100", ".fseventsd", ".temporaryitems", "lost+found", "@eadir", "@tmp", ".@__thumb",
			},
		},
		{
			Kind: "office lock files", Why: "Office programs write them while a document is open.",
			Files: []string{"~$*", ".~lock.*"},
		},
		{
			Kind: "partial transfers", Why: "Half a document must not be uploaded.",
			Files: []string{
				"*.part", "*.partial", "*.crdownload", "*.download", "*.filepart", "*.opdownload", "*.aria2", "*.tmp", "*.!sync", ".syncthing.*", "~syncthing~*",
			},
			Directories: []string{".rsync-partial", ".~tmp~", ".tmp.drivedownload", ".tmp.driveupload", "*.download", ".stfolder"},
		},
		{
			Kind: OwnFilesKind, Why: "They configure kbsync.",
			Files: []string{".kbsync*"},
		},
		{
			Kind: "hidden files", Why: "A name that begins with a dot is hidden, mostly because a program wrote it.",
			Files: []string{".*"}, Directories: []string{".*"},
		},
	}
}

// The default exclusions, by the kind of entry.
var (
	fileExclusions      = newExclusions(false)
	directoryExclusions = newExclusions(true)
)

// exclusions is an index of exclusions by name.
type exclusions struct {
	names   map[string]*exclusion
	endings map[string]*exclusion // by the extension
	begins  [256][]*exclusion     // other patterns, by the character with which they begin
	stars   []*exclusion          // other patterns that begin with a star
	marks   []string              // one of these texts is in each name that a pattern of stars matches, by pattern
}

func newExclusions(dir bool) *exclusions {
	set := &exclusions{names: map[string]*exclusion{}, endings: map[string]*exclusion{}}
	for _, kind := range DefaultExclusions() {
		patterns := kind.Files
		if dir {
			patterns = kind.Directories
		}
		for _, pattern := range patterns {
			tokens, _ := parseWildcards(pattern, 0, true, ofBytes) // a test checks that they are valid
			set.add(&exclusion{pattern: pattern, tokens: tokens, dir: dir, why: kind.Kind})
		}
	}
	return set
}

func (s *exclusions) add(x *exclusion) {
	ending, isEnding := strings.CutPrefix(x.pattern, "*.")
	switch {
	case !strings.ContainsAny(x.pattern, "*["):
		s.names[x.pattern] = x
	case isEnding && !strings.ContainsAny(ending, "*[."):
		s.endings[ending] = x
	case x.pattern[0] != '*':
		s.begins[x.pattern[0]] = append(s.begins[x.pattern[0]], x)
	default:
		s.stars = append(s.stars, x)
		texts := strings.FieldsFunc(x.pattern, func(r rune) bool { return strings.ContainsRune("*[]", r) })
		s.marks = append(s.marks, slices.MaxFunc(texts, func(a, b string) int { return len(a) - len(b) }))
	}
}

// find returns the exclusion of a name, or nil.
func (s *exclusions) find(name string) *exclusion {
	if name == "" || name == "." || name == ".." {
		return nil // possible in a bucket, and not hidden
	}
	name = strings.ToLower(name)
	if x := s.names[name]; x != nil {
		return x
	}
	if dot := strings.LastIndexByte(name, '.'); dot >= 0 {
		if x := s.endings[name[dot+1:]]; x != nil {
			return x
		}
	}
	for i, x := range s.stars {
		if strings.Contains(name, s.marks[i]) && x.matches(name) {
			return x
		}
	}
	for _, x := range s.begins[name[0]] {
		if x.matches(name) {
			return x
		}
	}
	return nil
}
