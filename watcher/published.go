package watcher

import (
	"errors"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// Two programs publish the versions of a directory by a link that they swap at once: Kubernetes, which mounts ConfigMaps, and git-sync. The
// directories behind the links have another name for each version, and the links do not, so the documents have the keys of the links. A
// directory is such a publication, wherever in the root it is.
//
// Kubernetes: doc.md -> ..data/doc.md, ..data -> ..2026_11_24_1. git-sync: current -> .worktrees/HASH, or rev-HASH until version 3.

// dataLink is the link that Kubernetes swaps.
const dataLink = "..data"

// publishes reports whether a link with this target is one that git-sync swaps.
func publishes(target string) bool {
	dir, name := path.Split(path.Clean(filepath.ToSlash(target)))
	if path.Base(dir) == ".worktrees" {
		return isRevision(name)
	}
	return isWorktree(name)
}

// isWorktree reports whether git-sync names the directories of versions so.
func isWorktree(name string) bool {
	hash, ok := strings.CutPrefix(name, "rev-")
	return name == ".worktrees" || ok && isRevision(hash)
}

// isRevision reports whether text is the hash of a Git commit.
func isRevision(text string) bool {
	return (len(text) == 40 || len(text) == 64) && strings.Trim(text, "0123456789abcdef") == ""
}

// A publication is what a walk knows of the swapped links of one directory.
type publication struct {
	links    map[string]string // the target of each swapped link, by name
	isMount  known             // whether it has a ..data link
	isSynced known             // whether git-sync publishes in it
}

// known is an answer that may not have been looked for.
type known uint8

const (
	unknown known = iota
	yes
	no
)

func knownIf(ok bool) known {
	if ok {
		return yes
	}
	return no
}

func (p *publication) swapped(name, target string) {
	if p.links == nil {
		p.links = map[string]string{}
	}
	p.links[name] = target
}

// mounted reports whether f is a mounted ConfigMap.
func (w *walk) mounted(f *frame) bool {
	if f.isMount == unknown {
		data, err := f.folder.stat(dataLink)
		f.isMount = knownIf(err == nil && data.kind == kindLink)
		if f.isMount == yes {
			f.swapped(dataLink, w.target(f, dataLink))
		}
	}
	return f.isMount == yes
}

// synced reports whether git-sync publishes in f.
func (w *walk) synced(f *frame) bool {
	if f.isSynced != unknown {
		return f.isSynced == yes
	}
	again, err := f.folder.child(".") // the folder itself may be read halfway
	if err != nil {
		return false
	}
	defer again.close()
	nodes, err := again.read(make([]byte, 16<<10))
	if err != nil {
		return false
	}
	w.findSynced(f, nodes)
	return f.isSynced == yes
}

// findSynced looks for links of git-sync among the names in f.
func (w *walk) findSynced(f *frame, nodes []node) {
	f.isSynced = no
	for _, n := range nodes {
		if n.kind != kindLink && n.kind != kindUnknown {
			continue
		}
		if target := w.target(f, n.name); publishes(target) {
			f.isSynced = yes
			f.swapped(n.name, target)
		}
	}
}

// target returns the target of a link in f; empty if there is none.
func (w *walk) target(f *frame, name string) string {
	target, err := w.root.Readlink(filepath.FromSlash(f.key + name))
	if errors.Is(err, syscall.ELOOP) {
		var dir string
		if dir, err = linkTarget(w.root, filepath.FromSlash(f.key)); err == nil {
			target, err = w.root.Readlink(filepath.Join(dir, name))
		}
	}
	if err != nil {
		return ""
	}
	return target
}

// hidden reports whether a name in f is internal to a publication.
func (w *walk) hidden(f *frame, name string) bool {
	return strings.HasPrefix(name, "..") && w.mounted(f) || isWorktree(name) && w.synced(f)
}

// published reports whether a link in f leads to the published version of a document or of a directory.
func (w *walk) published(f *frame, name string) bool {
	target := w.target(f, name)
	if strings.HasPrefix(filepath.ToSlash(target), dataLink+"/") {
		return w.mounted(f)
	}
	if !publishes(target) {
		return false
	}
	f.swapped(name, target)
	return true
}

// checkSwaps reports an error if a link of f was swapped since it was first looked at: the listing mixes the old and the new version,
// and the old one may have been emptied.
func (w *walk) checkSwaps(f *frame) {
	if w.stopped {
		return
	}
	for name, target := range f.links {
		if w.target(f, name) != target {
			w.report(f.key+name, ErrRootChanged)
			return
		}
	}
}

// identity returns the metadata of the directory of f.
func (f *frame) identity() info {
	if f.self.fingerprint.Inode == 0 {
		f.self, _ = f.folder.self() // without it, no link leads to the directory
	}
	return f.self
}
