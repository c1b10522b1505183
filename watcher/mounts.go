package watcher

import (
	"context"
	"encoding/json"
	"fmt"
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

// A changedMount is a directory on which a file system was mounted at the last scan and is not now, or the other way round.
type changedMount struct {
	key      string
	gained   bool
	uploaded int // known documents below it of which a version was sent
}

// findMounts returns the mounts below the root, and sets result.mounts if the scan is of the whole root.
func (s *Scanner) findMounts(ctx context.Context, known string, result *Result) ([]string, error) {
	tree, ok := s.root.(DirectoryTree)
	if !ok || result.Prefixes[0] != "" {
		return nil, nil
	}
	mounts, err := tree.Mounts(ctx)
	if err != nil {
		return nil, err
	}
	result.mounts = changedMounts(known, mounts)
	return mounts, nil
}

// changedMounts compares the mounts with those of the last scan.
func changedMounts(known string, now []string) (changed []changedMount) {
	if known == "" {
		return nil
	}
	_, before := splitMounts(known)
	for _, key := range before {
		if !slices.Contains(now, key) {
			changed = append(changed, changedMount{key: key})
		}
	}
	for _, key := range now {
		if !slices.Contains(before, key) {
			changed = append(changed, changedMount{key: key, gained: true})
		}
	}
	return changed
}

// checkSameMounts makes the result of a scan of the whole root incomplete if a file system was mounted or unmounted during the scan.
func (s *Scanner) checkSameMounts(ctx context.Context, before []string, result *Result) error {
	tree, ok := s.root.(DirectoryTree)
	if !ok || result.Prefixes[0] != "" {
		return nil
	}
	after, err := tree.Mounts(ctx)
	if err == nil && !slices.Equal(before, after) {
		result.incomplete(fmt.Errorf("%w: a file system was mounted or unmounted in it", ErrRootChanged))
	}
	return err
}

// countMounts counts the document of a pair.
func (r *Result) countMounts(p *Pair) {
	if !p.isKnown || p.known.NeverUploaded {
		return
	}
	for i := range r.mounts {
		if strings.HasPrefix(p.known.Key, r.mounts[i].key) {
			r.mounts[i].uploaded++
		}
	}
}

// checkMounts returns a *GuardError if a file system below the root is not mounted any more, or is mounted over documents, and less than
// half of its documents are listed.
func (s *Scanner) checkMounts(ctx context.Context, counter Counter, c check) error {
	if s.opts.AcceptNewRoot {
		return nil
	}
	if c.result.Prefixes[0] != "" {
		return s.checkMountsOfPart(ctx, c)
	}
	for _, m := range c.result.mounts {
		count, err := counter.CountBelow(ctx, c.scan, m.key)
		if err != nil {
			return err
		}
		if removals := count.Removals(); 2*(m.uploaded-removals) < m.uploaded {
			return m.halt(c, removals)
		}
	}
	return nil
}

func (m changedMount) halt(c check, removals int) error {
	guard := GuardLostMount
	if m.gained {
		guard = GuardNewMount
	}
	return &GuardError{Guard: guard, Sync: c.sync.Name, Root: c.sync.Root, Directory: m.key, Known: m.uploaded, Removals: removals}
}

// checkMountsOfPart returns a *GuardError if documents vanished from a part of the root in which the mounts have changed since the last
// scan of the whole root. That scan follows then, and weighs them.
func (s *Scanner) checkMountsOfPart(ctx context.Context, c check) error {
	tree, ok := s.root.(DirectoryTree)
	if !ok {
		return nil
	}
	mounts, err := tree.Mounts(ctx)
	if err != nil {
		return err
	}
	for _, m := range changedMounts(c.sync.RootIdentity, mounts) {
		for _, prefix := range c.result.Prefixes {
			if covers(prefix, m.key) || covers(m.key, prefix) {
				return m.halt(c, c.vanished)
			}
		}
	}
	return nil
}
