package watcher

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// Explain reports how a scan treats the document at key, and the rule that decides. An error means that a scan would fail
// to decide as well.
func (d *Directory) Explain(ctx context.Context, key string) (Explanation, error) {
	x := Explanation{Key: key}
	w, f, err := d.begin(ctx)
	if err != nil {
		return x, err
	}
	defer w.end()
	defer func() {
		for ; f != nil; f = f.parent {
			f.folder.close()
		}
	}()
	if !validKey(key) {
		x.Reason = "it is not a path below the root"
		return x, nil
	}
	for rest := key; ; {
		if err := w.readIgnores(f); err != nil {
			return x, &ListError{Path: f.key, Err: err}
		}
		name, below, isDir := strings.Cut(rest, "/")
		n, v, err := w.explainName(f, name, key, isDir)
		if err != nil {
			return x, err
		}
		if v.reason != "" {
			x.Reason, x.Rule, x.Place = v.reason, v.rule, v.place
			return x, nil
		}
		if !isDir {
			return w.explainFile(x, f, n)
		}
		child, err := w.openChild(f, n, name)
		if err != nil {
			return x, err
		}
		f, rest = child, below
	}
}

// explainName looks at one name in f on the way to key. The verdict has a reason if the explanation ends here.
func (w *walk) explainName(f *frame, name, key string, isDir bool) (node, verdict, error) {
	if w.hidden(f, name) {
		return node{}, verdict{reason: "it is internal to a mounted ConfigMap or to git-sync, which publish it by a link"}, nil
	}
	n, err := w.lookExactly(f, name)
	if errors.Is(err, errGone) {
		// The filter decides on a missing file as well.
		if v := w.filter.document(key, f.ignores, nil); v.out {
			return n, v, nil
		}
		return n, verdict{reason: "there is no such file"}, nil
	}
	if err != nil {
		return n, verdict{}, &ListError{Path: f.key + name, Err: err}
	}
	if !isDir {
		return n, verdict{}, nil
	}
	if n.kind != kindDirectory {
		return n, verdict{reason: fmt.Sprintf("%q is %s, not a directory", f.key+name, fileKindText(n.kind))}, nil
	}
	if v := w.filter.directory(f.key+name, f.ignores, nil); v.out {
		return n, v, nil
	}
	return n, verdict{}, nil
}

// openChild opens the directory name in f.
func (w *walk) openChild(f *frame, n node, name string) (*frame, error) {
	var child *folder
	var err error
	if n.via {
		child, err = openFolder(w.root, filepath.FromSlash(f.key+name))
	} else {
		child, err = f.folder.child(name)
	}
	if err != nil {
		return nil, &ListError{Path: f.key + name + "/", Err: err}
	}
	return &frame{folder: child, key: f.key + name + "/", parent: f}, nil
}

func fileKindText(k kind) string {
	if k == kindFile {
		return "a file"
	}
	return kindText(k)
}

// explainFile explains the last part of a key.
func (w *walk) explainFile(x Explanation, f *frame, n node) (Explanation, error) {
	switch n.kind {
	case kindDirectory:
		x.Reason = "it is a directory"
		if v := w.filter.directory(x.Key, f.ignores, nil); v.out {
			x.Reason, x.Rule, x.Place = v.reason, v.rule, v.place
		}
		return x, nil
	case kindLink:
		x.Reason = "it is a symbolic link, which --copy-links would follow"
		if w.links {
			x.Reason = "it is a symbolic link that leads nowhere, in a circle or out of the root"
		}
		return x, nil
	case kindFile:
	default:
		x.Reason = "it is " + kindText(n.kind)
		return x, nil
	}
	v := w.filter.document(x.Key, f.ignores, nil)
	x.Reason, x.Rule, x.Place = v.reason, v.rule, v.place
	if v.out {
		return x, nil
	}
	if n.placeholder != "" {
		x.Listed, x.Reason, x.Rule, x.Place = true, placeholderSkip, "", ""
		return x, nil
	}
	i, err := w.inspect(f, n)
	if err != nil {
		return x, &ListError{Path: x.Key, Err: err}
	}
	x.Listed = true
	if i.dehydrated {
		x.Reason, x.Rule, x.Place = placeholderSkip, "", ""
		return x, nil
	}
	if skip := w.filter.skip(i.fingerprint.Size); skip != "" {
		x.Reason, x.Rule, x.Place = skip, "", ""
		return x, nil
	}
	x.Taken = true
	return x, nil
}
