package watcher

import (
	"errors"
	"io/fs"
)

// errGone reports that an entry of a directory was removed or replaced after the directory was read.
var errGone = errors.New("gone")

// A node is a name in a directory.
type node struct {
	name string // of a directory with a slash at its end, for the order
	kind kind
	via  bool // reached by a symbolic link
	// placeholder is the name of the file that a cloud client has left in place of the document; empty if the document is there.
	placeholder string
}

type kind uint8

const (
	kindUnknown kind = iota
	kindFile
	kindDirectory
	kindLink
	kindOther
)

// kindText describes an entry that is not a document.
func kindText(k kind) string {
	if k == kindLink {
		return "a symbolic link"
	}
	return "not a regular file"
}

func kindOf(mode fs.FileMode) kind {
	switch {
	case mode.IsRegular():
		return kindFile
	case mode.IsDir():
		return kindDirectory
	case mode&fs.ModeSymlink != 0:
		return kindLink
	}
	return kindOther
}
