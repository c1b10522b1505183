package watcher

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
)

// The identity of a root that the state keeps has the file systems that were mounted below it, so that one which is gone is weighed as
// another root is. They follow the identity in a line of their own.

// withMounts returns the text for the state.
func withMounts(identity string, mounts []string) string {
	if len(mounts) == 0 {
		return identity
	}
	keys := make([][]byte, len(mounts)) // keys are bytes
	for i, m := range mounts {
		keys[i] = []byte(m)
	}
	text, _ := json.Marshal(keys) // no slice of bytes fails
	return identity + "\n" + string(text)
}

// splitMounts is the inverse of withMounts.
func splitMounts(text string) (identity string, mounts []string) {
	identity, list, _ := strings.Cut(text, "\n")
	var keys [][]byte
	_ = json.Unmarshal([]byte(list), &keys) // none, if it is not a list
	for _, key := range keys {
		mounts = append(mounts, string(key))
	}
	return identity, mounts
}

// A lostMount is a directory on which a file system was mounted at the last scan.
type lostMount struct {
	key      string
	uploaded int // known documents below it of which a version was sent
}

// findMounts returns the mounts below the root, and sets result.lost if the scan is of the whole root.
func (s *Scanner) findMounts(ctx context.Context, known string, result *Result) ([]string, error) {
	tree, ok := s.root.(DirectoryTree)
	if !ok || result.Prefixes[0] != "" {
		return nil, nil
	}
	mounts, err := tree.Mounts(ctx)
	if err != nil {
		return nil, err
	}
	_, before := splitMounts(known)
	for _, key := range before {
		if !slices.Contains(mounts, key) {
			result.lost = append(result.lost, lostMount{key: key})
		}
	}
	return mounts, nil
}

// countLost counts the document of a pair.
func (r *Result) countLost(p *Pair) {
	if !p.isKnown || p.known.NeverUploaded {
		return
	}
	for i := range r.lost {
		if strings.HasPrefix(p.known.Key, r.lost[i].key) {
			r.lost[i].uploaded++
		}
	}
}

// checkMounts returns a *GuardError if a file system below the root is not mounted any more, and less than half of its documents are
// listed.
func (s *Scanner) checkMounts(ctx context.Context, counter Counter, c check) error {
	if s.opts.AcceptNewRoot {
		return nil
	}
	for _, m := range c.result.lost {
		count, err := counter.CountBelow(ctx, c.scan, m.key)
		if err != nil {
			return err
		}
		if removals := count.Removals(); 2*(m.uploaded-removals) < m.uploaded {
			return &GuardError{Guard: GuardLostMount, Sync: c.sync.Name, Root: c.sync.Root, Directory: m.key, Known: m.uploaded, Removals: removals}
		}
	}
	return nil
}
