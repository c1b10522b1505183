package watcher

import (
	"context"
	"strings"
)

// A keyFilter applies a Filter to keys that come in order, or nearly so. It keeps the folders of the last key.
type keyFilter struct {
	filter *Filter
	// load returns the ignore file of a folder, linked to parent; parent if there is none. Nil: there are no ignore files.
	load func(dir string, parent *ignoreFile) (*ignoreFile, error)
	left *LeftOut // nil if nothing is counted

	dir     string // of the last key, with a slash at its end
	folders []keyFolder
	started bool
}

// A keyFolder is a folder of a key.
type keyFolder struct {
	dir     string // with a slash at its end; "" for the root
	ignores *ignoreFile
	verdict verdict // if it is out, the folders below it are not kept
}

// document decides on a key. An error is that of load.
func (s *keyFilter) document(key string) (verdict, error) {
	dir := key[:strings.LastIndexByte(key, '/')+1]
	if dir != s.dir || !s.started {
		if err := s.enter(dir); err != nil {
			return verdict{}, err
		}
	}
	in := &s.folders[len(s.folders)-1]
	if in.verdict.out {
		return in.verdict, nil
	}
	v := s.filter.document(key, in.ignores, s.left.rules())
	if s.left != nil {
		s.left.file(key, &v)
	}
	return v, nil
}

// enter changes to a folder.
func (s *keyFilter) enter(dir string) error {
	kept := len(s.folders)
	for kept > 0 && !strings.HasPrefix(dir, s.folders[kept-1].dir) {
		kept--
	}
	s.leave(kept)
	if !s.started {
		if err := s.push("", verdict{}); err != nil {
			return err
		}
		s.started = true
	}
	s.dir = dir
	top := &s.folders[len(s.folders)-1]
	for i := len(top.dir); i < len(dir) && !top.verdict.out; i++ {
		// No rule matches a directory with an empty name.
		if dir[i] != '/' || i == 0 || dir[i-1] == '/' {
			continue
		}
		v := s.filter.directory(dir[:i], top.ignores, s.left.rules())
		if v.out && s.left != nil {
			s.left.directory(dir[:i], &v, s.filter)
		}
		if err := s.push(dir[:i+1], v); err != nil {
			return err
		}
		top = &s.folders[len(s.folders)-1]
	}
	return nil
}

func (s *keyFilter) push(dir string, v verdict) (err error) {
	f := keyFolder{dir: dir, verdict: v}
	if len(s.folders) > 0 {
		f.ignores = s.folders[len(s.folders)-1].ignores
	}
	if s.load != nil && !v.out {
		if f.ignores, err = s.load(dir, f.ignores); err != nil {
			return err
		}
		if s.left != nil {
			f.ignores.count()
		}
	}
	s.folders = append(s.folders, f)
	return nil
}

// leave leaves all folders but the first ones. The rules of their ignore files have met everything that they can match.
func (s *keyFilter) leave(kept int) {
	for len(s.folders) > kept {
		last := s.folders[len(s.folders)-1]
		s.folders = s.folders[:len(s.folders)-1]
		if s.left != nil && last.ignores != nil && last.ignores.dir == last.dir {
			s.left.ignoreFile(last.ignores)
		}
	}
}

// Explain reports how a scan treats the document at key, and the rule that decides. An error means that a scan would fail
// to decide as well.
func (b *Bucket) Explain(ctx context.Context, key string) (Explanation, error) {
	x := Explanation{Key: key}
	filter := keyFilter{filter: b.filter, load: func(dir string, parent *ignoreFile) (*ignoreFile, error) {
		return b.ignoresAt(ctx, dir, parent, &ignoreSearch{})
	}}
	v, err := filter.document(key)
	if err != nil {
		return x, err
	}
	x.Reason, x.Rule, x.Place = v.reason, v.rule, v.place
	if v.out {
		return x, nil
	}
	for page, err := range b.pages(ctx, b.prefix+key) {
		if err != nil {
			return x, err
		}
		for _, o := range page.objects {
			if o.key != b.prefix+key {
				continue
			}
			if isMarker(key, o.fingerprint.Size) {
				x.Reason, x.Rule, x.Place = "it stands for a folder", "", ""
				return x, nil
			}
			x.Listed = true
			if e := b.entry(key, &o); e.Skip != "" {
				x.Reason, x.Rule, x.Place = e.Skip, "", ""
				return x, nil
			}
			x.Taken = true
			return x, nil
		}
		if len(page.objects) > 0 && !b.unordered() {
			break
		}
	}
	x.Reason, x.Rule, x.Place = "there is no such object", "", ""
	return x, nil
}
