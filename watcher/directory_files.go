package watcher

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// looksAtOnce is how many files of a directory are looked at at the same time.
	looksAtOnce = 8
	// looksAhead is how many files are looked at before the first of them is yielded.
	looksAhead = 256
	// looksEach is how many files are worth another goroutine. On a network file system each one is, because it needs a round trip.
	looksEach = 16
)

// A look is what a walk learns about a file before it yields it.
type look struct {
	node
	seen time.Time // just before the look
	info info
	err  error
}

// files yields the run of files at the beginning of nodes. The filter leaves some of them out. The result is the length of the run.
func (w *walk) files(f *frame, nodes []node) (n int) {
	looks := w.looks[:0]
	for ; n < len(nodes) && n < looksAhead && nodes[n].kind == kindFile; n++ {
		key := f.key + nodes[n].name
		v := w.filter.document(key, f.ignores, w.left.rules())
		if w.left != nil {
			w.left.file(key, &v)
		}
		if !v.out {
			looks = append(looks, look{node: nodes[n]})
		}
	}
	w.looks = looks
	w.lookAt(f, looks)
	for i := range looks {
		if !w.goesOn() {
			break
		}
		w.emitFile(f, &looks[i])
	}
	return n
}

// lookAt looks at files of f, several at a time if there are many.
func (w *walk) lookAt(f *frame, looks []look) {
	var next atomic.Int64
	work := func() {
		for i := next.Add(1) - 1; i < int64(len(looks)); i = next.Add(1) - 1 {
			if l := &looks[i]; l.placeholder == "" {
				l.seen = w.now()
				l.info, l.err = w.inspect(f, l.node)
			}
		}
	}
	var group sync.WaitGroup
	workers := len(looks) / looksEach
	if w.isFar() {
		workers = len(looks)
	}
	for range min(workers, looksAtOnce) - 1 {
		group.Go(work)
	}
	work()
	group.Wait()
}

// isFar reports whether the walk has met a network file system.
func (w *walk) isFar() bool {
	for _, foreign := range w.clocks {
		if foreign {
			return true
		}
	}
	return false
}

// emitFile yields a file.
func (w *walk) emitFile(f *frame, l *look) {
	key, i := f.key+l.name, &l.info
	switch {
	case l.placeholder != "":
		w.emitPlaceholder(key)
	case errors.Is(l.err, errGone):
	case l.err != nil:
		w.report(key, l.err)
	case i.kind == kindFile && i.dehydrated:
		w.emitPlaceholder(key)
	case i.kind == kindFile:
		w.emit(Entry{
			Key: key, Fingerprint: w.steadied(key, i.fingerprint), Skip: w.filter.skip(i.fingerprint.Size), Seen: l.seen,
			Foreign: w.isForeign(f, l.node, i.device),
		}, nil)
	}
}

// inspect returns the metadata of a file. Several goroutines may call it.
func (w *walk) inspect(f *frame, n node) (info, error) {
	if w.fault != nil {
		if err := w.fault(f.key + n.name); err != nil {
			return info{}, err
		}
	}
	i, err := info{}, error(nil)
	if n.via {
		if i, err = w.stat(f.key + n.name); err != nil && leadsNowhere(err) {
			err = errGone
		}
	} else {
		i, err = f.folder.stat(w.nameIn(f, n.name))
	}
	if w.Directory.stamp != nil {
		i.fingerprint = w.Directory.stamp(f.key+n.name, i.fingerprint)
	}
	return i, err
}
