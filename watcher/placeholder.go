package watcher

import (
	"errors"
	"slices"
	"strings"
)

// Sync clients that free space leave a placeholder in place of a document whose content is only in the cloud: Nextcloud and ownCloud
// x.pdf.nextcloud and x.pdf.owncloud, iCloud .x.pdf.icloud. The document is there and cannot be read. It must not count as removed.

// placeholderSkip is the reason why such a document is not uploaded.
const placeholderSkip = "in the cloud only (a sync client has left a placeholder)" // of a dehydrated file, too

// documentOf returns the name of the document that a placeholder stands for; empty if the name is not that of a placeholder.
func documentOf(name string) string {
	dot := strings.LastIndexByte(name, '.')
	if dot <= 0 {
		return ""
	}
	switch strings.ToLower(name[dot:]) {
	case ".nextcloud", ".owncloud":
		return name[:dot]
	case ".icloud":
		if name[0] == '.' {
			return name[1:dot]
		}
	}
	return ""
}

// placeholders replaces the placeholders among the nodes of a directory by the documents that they stand for. A document that is
// there beside its placeholder stays.
func placeholders(nodes []node) []node {
	if !slices.ContainsFunc(nodes, func(n node) bool { return n.kind == kindFile && documentOf(n.name) != "" }) {
		return nodes
	}
	real := map[string]bool{}
	for _, n := range nodes {
		real[n.name] = true
	}
	kept := nodes[:0]
	for _, n := range nodes {
		document := ""
		if n.kind == kindFile {
			document = documentOf(n.name)
		}
		switch {
		case document == "":
			kept = append(kept, n)
		case !real[document]:
			real[document] = true
			kept = append(kept, node{name: document, kind: kindFile, placeholder: n.name})
		}
	}
	return kept
}

// lookForPlaceholder returns the node of a document in f of which only a placeholder is there. Errors: errGone.
func (w *walk) lookForPlaceholder(f *frame, name string) (node, error) {
	for _, p := range []string{name + ".nextcloud", name + ".owncloud", "." + name + ".icloud"} {
		i, err := f.folder.stat(p)
		if err == nil && i.kind == kindFile {
			return node{name: name, kind: kindFile, placeholder: p}, nil
		}
		if err != nil && !errors.Is(err, errGone) {
			return node{}, err
		}
	}
	return node{}, errGone
}

// emitPlaceholder yields a document of which only a placeholder is there.
func (w *walk) emitPlaceholder(key string) {
	w.emit(Entry{Key: key, Skip: placeholderSkip, Unreadable: true, Placeholder: true}, nil)
}
