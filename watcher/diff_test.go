package watcher

import (
	"cmp"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/kbsync/kbsync/state"
)

// stream yields the values, and then the error if there is one.
func stream[T any](values []T, err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, v := range values {
			if !yield(v, nil) {
				return
			}
		}
		if err != nil {
			var zero T
			yield(zero, err)
		}
	}
}

func sorted(known map[string]state.KnownDocument) []state.KnownDocument {
	return slices.SortedFunc(maps.Values(known), func(a, b state.KnownDocument) int { return cmp.Compare(a.Key, b.Key) })
}

// apply changes known as the state would.
func apply(known map[string]state.KnownDocument, c state.Change) {
	switch c.Op {
	case state.Vanish:
		delete(known, c.Key)
	default:
		known[c.Key] = state.KnownDocument{Key: c.Key, Fingerprint: c.Fingerprint, Skip: c.Reason}
	}
}

// tree reads documents from fuzz bytes: each has a key, a version and a reason to skip.
func tree(data []byte) (listed []Entry, known map[string]state.KnownDocument) {
	known = map[string]state.KnownDocument{}
	entries := map[string]Entry{}
	skips := []string{"", "", "empty", "larger than 1MiB"}
	for len(data) >= 4 {
		length := min(int(data[0]%5)+1, len(data)-3)
		key := string(data[1 : 1+length])
		a, b := data[1+length], data[2+length]
		data = data[3+length:]
		if a&0x80 != 0 {
			entries[key] = Entry{Key: key, Fingerprint: state.Fingerprint{Size: int64(a & 3), ETag: "x"}, Skip: skips[a>>2&3]}
		}
		if b&0x80 != 0 {
			known[key] = state.KnownDocument{Key: key, Fingerprint: state.Fingerprint{Size: int64(b & 3), ETag: "x"}, Skip: skips[b>>2&3]}
		}
	}
	return slices.SortedFunc(maps.Values(entries), func(a, b Entry) int { return cmp.Compare(a.Key, b.Key) }), known
}

// changesOf yields the changes of Diff.
func changesOf(listed iter.Seq2[Entry, error], known iter.Seq2[state.KnownDocument, error]) iter.Seq2[state.Change, error] {
	return func(yield func(state.Change, error) bool) {
		for p, err := range Diff(listed, known) {
			if err != nil {
				if !yield(state.Change{}, err) {
					return
				}
				continue
			}
			if change, ok := p.Change(); ok && !yield(change, nil) {
				return
			}
		}
	}
}

// FuzzDiff checks the law of Diff: applying its changes to the known documents gives the listing, and a second Diff is empty.
func FuzzDiff(f *testing.F) {
	f.Add([]byte("\x02a/b\x80\x00\x02a-b\x80\x81\x02a.b\x00\x80"))
	f.Add([]byte("\x00a\x80\x84\x00b\x84\x80\x00c\xff\x80\x00d\xff\x00"))
	f.Add([]byte("\x04\xff\xfe\n/x\x91\x92\x01aa\x00\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		listed, known := tree(data)
		want := map[string]state.KnownDocument{}
		for _, e := range listed {
			want[e.Key] = state.KnownDocument{Key: e.Key, Fingerprint: e.Fingerprint, Skip: e.Skip}
		}
		previous := ""
		for c, err := range changesOf(stream(listed, nil), stream(sorted(known), nil)) {
			if err != nil {
				t.Fatal(err)
			}
			if c.Key <= previous && previous != "" {
				t.Errorf("%q after %q", c.Key, previous)
			}
			previous = c.Key
			apply(known, c)
		}
		if !maps.Equal(known, want) {
			t.Errorf("got  %v\nwant %v", known, want)
		}
		for c, err := range changesOf(stream(listed, nil), stream(sorted(known), nil)) {
			t.Errorf("the second time: %v, %v", c, err)
		}
	})
}

func TestDiffOps(t *testing.T) {
	fp := func(n int64) state.Fingerprint { return state.Fingerprint{Size: n} }
	listed := []Entry{
		{Key: "changed", Fingerprint: fp(2)}, {Key: "new", Fingerprint: fp(1)},
		{Key: "same", Fingerprint: fp(1)}, {Key: "skip again", Fingerprint: fp(1), Skip: "empty"}, {Key: "skip new", Skip: "empty"},
		{Key: "skip why", Fingerprint: fp(1), Skip: "large"}, {Key: "unskipped", Fingerprint: fp(1)},
	}
	known := []state.KnownDocument{
		{Key: "changed", Fingerprint: fp(1)}, {Key: "gone", Fingerprint: fp(1)},
		{Key: "same", Fingerprint: fp(1)}, {Key: "skip again", Fingerprint: fp(1), Skip: "empty"},
		{Key: "skip why", Fingerprint: fp(1), Skip: "empty"}, {Key: "unskipped", Fingerprint: fp(1), Skip: "empty"}, {Key: "zone"},
	}
	want := []state.Change{
		{Op: state.Put, Key: "changed", Fingerprint: fp(2)}, {Op: state.Vanish, Key: "gone", Fingerprint: fp(1)}, {Op: state.Put, Key: "new", Fingerprint: fp(1)},
		{Op: state.Skip, Key: "skip new", Reason: "empty"}, {Op: state.Skip, Key: "skip why", Fingerprint: fp(1), Reason: "large"},
		{Op: state.Put, Key: "unskipped", Fingerprint: fp(1)}, {Op: state.Vanish, Key: "zone"},
	}
	var got []state.Change
	for c, err := range changesOf(stream(listed, nil), stream(known, nil)) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, c)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// Diff notices a stream out of order before any document after that place vanishes.
func TestDiffNoticesStreamsOutOfOrder(t *testing.T) {
	for name, keys := range map[string][]string{"before": {"b", "a"}, "twice": {"a", "a"}, "directory order": {"a/b", "a-b"}} {
		var entries []Entry
		var known []state.KnownDocument
		for _, key := range keys {
			entries = append(entries, Entry{Key: key})
			known = append(known, state.KnownDocument{Key: key})
		}
		run := func(listed []Entry, known []state.KnownDocument) (err error) {
			for c, e := range changesOf(stream(listed, nil), stream(known, nil)) {
				if err = e; e == nil && c.Op == state.Vanish && c.Key > keys[0] {
					t.Errorf("%s: %v", name, c)
				}
			}
			return err
		}
		if order, ok := errors.AsType[*OrderError](run(entries, []state.KnownDocument{{Key: "z"}})); !ok || order.Stream != "listing" || order.Key != keys[1] {
			t.Errorf("%s: got %v", name, order)
		}
		if order, ok := errors.AsType[*OrderError](run(nil, known)); !ok || order.Stream != "state" {
			t.Errorf("%s: got %v", name, order)
		}
	}
}

func TestDiffEndsEarly(t *testing.T) {
	boom := errors.New("boom")
	all := func(listed iter.Seq2[Entry, error], known iter.Seq2[state.KnownDocument, error]) (changes string, err error) {
		for c, e := range changesOf(listed, known) {
			if e != nil {
				err = errors.Join(err, e)
				continue
			}
			changes += string("PSV"[c.Op]) + c.Key + " "
		}
		return strings.TrimSpace(changes), err
	}
	known := stream([]state.KnownDocument{{Key: "a"}, {Key: "c"}, {Key: "x"}}, nil)
	if got, err := all(stream([]Entry{{Key: "b"}}, boom), known); got != "Va Pb" || !errors.Is(err, boom) {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := all(stream([]Entry{{Key: "b"}, {Key: "y"}}, nil), stream([]state.KnownDocument{{Key: "a"}}, boom)); got != "Va" || !errors.Is(err, boom) {
		t.Errorf("got %q, %v", got, err)
	}
	// After a part that could not be listed, no document vanishes.
	partial := func(yield func(Entry, error) bool) {
		_ = yield(Entry{Key: "b"}, nil) && yield(Entry{}, &ListError{Path: "c/", Err: boom}) && yield(Entry{Key: "d"}, nil)
	}
	if got, err := all(partial, known); got != "Va Pb Pd" || !errors.Is(err, boom) {
		t.Errorf("got %q, %v", got, err)
	}
	for range changesOf(stream([]Entry{{Key: "a"}, {Key: "b"}}, nil), known) {
		break
	}
}
