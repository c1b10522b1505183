package watcher

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// lookExactly is look for a name that no listing has just shown. A file system that ignores case or Unicode form finds a file by names that
// it does not have. Such a name is gone: otherwise a document that was renamed to another case would stay known under both.
func (w *walk) lookExactly(f *frame, name string) (node, error) {
	n, err := w.look(f, name)
	if err != nil || n.placeholder != "" {
		return n, err
	}
	found, err := f.folder.stat(w.nameIn(f, name))
	if err != nil {
		return node{}, err
	}
	for _, other := range otherSpellings(name) {
		i, err := f.folder.stat(w.nameIn(f, other))
		if err != nil || i.device != found.device || i.fingerprint.Inode != found.fingerprint.Inode {
			continue
		}
		// One file with two names: either hard links, or the file system takes one for the other.
		has, err := w.hasName(f, name)
		if err == nil && !has {
			err = errGone
		}
		return n, err
	}
	return n, nil
}

// otherSpellings returns names that only a file system without case or without Unicode form takes for name; none if there are none.
func otherSpellings(name string) []string {
	var others []string
	swapped := strings.Map(func(r rune) rune {
		if upper := unicode.ToUpper(r); upper != r {
			return upper
		}
		return unicode.ToLower(r)
	}, name)
	for _, other := range []string{swapped, norm.NFC.String(name), norm.NFD.String(name)} {
		if other != name {
			others = append(others, other)
		}
	}
	return others
}

// hasName reports whether a listing of f shows the name.
func (w *walk) hasName(f *frame, name string) (bool, error) {
	again, err := f.folder.child(".") // the folder itself may be read halfway
	if err != nil {
		return false, err
	}
	defer again.close()
	nodes, err := again.read(make([]byte, 16<<10))
	if err != nil {
		return false, err
	}
	for _, n := range nodes {
		if n.name == name {
			return true, nil
		}
	}
	return false, nil
}

// nameIn returns the name that the file system finds for a name in f. Only a test makes them differ.
func (w *walk) nameIn(f *frame, name string) string {
	if w.finds == nil {
		return name
	}
	return w.finds(f.folder, name)
}
