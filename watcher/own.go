package watcher

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/kbsync/kbsync/state"
)

// OwnKeys returns the keys of the paths inside the directory root. A path that does not exist yet is resolved by its directory.
func OwnKeys(root string, paths ...string) []string {
	root = realPath(root)
	var keys []string
	for _, path := range paths {
		// The file may be a link, as in a mounted ConfigMap. Neither the link nor its target is a document.
		link, target := filepath.Join(realPath(filepath.Dir(path)), filepath.Base(path)), realPath(path)
		for _, p := range slices.Compact([]string{link, target}) {
			if rel, err := filepath.Rel(root, p); err == nil && filepath.IsLocal(rel) && rel != "." {
				keys = append(keys, filepath.ToSlash(rel))
			}
		}
	}
	return keys
}

func realPath(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return path
	}
	return real
}

// ownFiles are kbsync's own files in a root.
type ownFiles struct {
	keys   map[string]bool // in the form of fold
	states []string        // in the form of fold
}

func newOwnFiles(keys, states []string) ownFiles {
	own := ownFiles{keys: map[string]bool{}}
	for _, key := range keys {
		own.keys[fold(key)] = true
	}
	for _, key := range states {
		own.states = append(own.states, fold(key))
	}
	return own
}

func (o *ownFiles) empty() bool { return len(o.keys) == 0 && len(o.states) == 0 }

// has reports whether a key in the form of fold is one of the files.
func (o *ownFiles) has(folded string) bool {
	if o.keys[folded] {
		return true
	}
	for _, s := range o.states {
		if suffix, ok := strings.CutPrefix(folded, s); ok && (suffix == "" || state.IsSideFile(suffix)) {
			return true
		}
	}
	return false
}
