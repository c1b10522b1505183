package preflight

import (
	"bytes"
	"strings"
)

// placeholderOf returns the name of the sync client that leaves a placeholder under such a key; empty for none.
//
// Nextcloud and ownCloud replace x.pdf by x.pdf.nextcloud or x.pdf.owncloud, iCloud by .x.pdf.icloud.
func placeholderOf(key string) (client string) {
	name := strings.ToLower(key[strings.LastIndexByte(key, '/')+1:])
	switch {
	case strings.HasSuffix(name, ".nextcloud"):
		return "Nextcloud"
	case strings.HasSuffix(name, ".owncloud"):
		return "ownCloud"
	case strings.HasSuffix(name, ".icloud") && strings.HasPrefix(name, "."):
		return "iCloud"
	}
	return ""
}

// placeholder finds the files that sync clients leave in place of a document that is only in the cloud.
func (s *sample) placeholder(r *Report) {
	if client := placeholderOf(s.name); client != "" {
		r.block("is a placeholder of %s; make the document available on this machine", client)
	}
}

const (
	// maxPointer is the most bytes of a Git LFS pointer by its specification, and maxAnnex of a git-annex pointer.
	maxPointer = 1 << 10
	maxAnnex   = 32 << 10
)

// pointer finds the files that stand for a document whose content is in another store.
func (s *sample) pointer(r *Report) {
	switch {
	case s.size <= maxPointer && isPointer(s.head):
		r.block("is a Git LFS pointer; run git lfs pull")
	case s.size <= maxAnnex && bytes.HasPrefix(s.head, []byte("/annex/objects/")):
		r.block("is a git-annex pointer; run git annex get")
	}
}

// isPointer reports whether data is a Git LFS pointer: lines of a key and a value, the version first. The two addresses are those
// of the specification and of the clients before it.
func isPointer(data []byte) bool {
	first, rest, _ := bytes.Cut(data, []byte("\n"))
	address, ok := strings.CutPrefix(strings.TrimRight(string(first), "\r"), "version ")
	if !ok {
		return false
	}
	switch address {
	case "https://git-lfs.github.com/spec/v1", "https://hawser.github.com/spec/v1", "http://git-media.io/v/2":
		return bytes.Contains(rest, []byte("oid sha256:"))
	}
	return false
}
