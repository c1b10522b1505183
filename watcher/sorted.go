package watcher

import (
	"bufio"
	"cmp"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strings"
	"time"
)

// sortedInMemory is the number of entries that are sorted in memory; further ones go into a file.
const sortedInMemory = 1 << 13

// inOrder yields the entries of a listing in byte order of the key, in constant memory: a temporary file holds the entries that do
// not fit, with keys and fingerprints only. Of several entries of one key, the last one counts. All errors come before the
// entries.
//
// Some stores list in another order: S3 directory buckets, Azure accounts with a hierarchical namespace, some S3-compatible
// stores.
func inOrder(listed iter.Seq2[Entry, error]) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		s := sorter{}
		defer s.close()
		for e, err := range listed {
			if err != nil {
				_, partial := errors.AsType[*ListError](err)
				if !yield(Entry{}, err) || !partial {
					return
				}
				continue
			}
			if err := s.add(e); err != nil {
				yield(Entry{}, fmt.Errorf("sort listing: %w", err))
				return
			}
		}
		for e, err := range s.merged() {
			if err != nil {
				yield(Entry{}, fmt.Errorf("sort listing: %w", err))
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// A sorter sorts entries in runs that fit into memory, and merges the runs.
type sorter struct {
	memory []Entry
	file   *os.File
	size   int64
	starts []int64 // of the runs in the file
}

func (s *sorter) add(e Entry) error {
	s.memory = append(s.memory, e)
	if len(s.memory) < sortedInMemory {
		return nil
	}
	return s.spill()
}

// sort sorts the entries in memory, and keeps the last one of each key.
func (s *sorter) sort() {
	slices.SortStableFunc(s.memory, func(a, b Entry) int { return strings.Compare(a.Key, b.Key) })
	kept := s.memory[:0]
	for i, e := range s.memory {
		if i+1 == len(s.memory) || s.memory[i+1].Key != e.Key {
			kept = append(kept, e)
		}
	}
	s.memory = kept
}

// spill appends the entries in memory to the file, as a run.
func (s *sorter) spill() (err error) {
	if s.file == nil {
		if s.file, err = os.CreateTemp("", "kbsync-listing-*"); err != nil {
			return err
		}
	}
	s.sort()
	s.starts = append(s.starts, s.size)
	w := bufio.NewWriterSize(s.file, 1<<16)
	var buffer []byte
	for i := range s.memory {
		buffer = appendEntry(buffer[:0], &s.memory[i])
		s.size += int64(len(buffer))
		if _, err := w.Write(buffer); err != nil {
			return err
		}
	}
	s.memory = s.memory[:0]
	return w.Flush()
}

func (s *sorter) close() {
	if s.file != nil {
		s.file.Close() // the file is removed anyway
		os.Remove(s.file.Name())
	}
}

// merged yields all entries in order.
func (s *sorter) merged() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if s.file == nil {
			s.sort()
			for _, e := range s.memory {
				if !yield(e, nil) {
					return
				}
			}
			return
		}
		if err := s.spill(); err != nil {
			yield(Entry{}, err)
			return
		}
		runs := make(runs, 0, len(s.starts))
		for i, start := range s.starts {
			end := s.size
			if i+1 < len(s.starts) {
				end = s.starts[i+1]
			}
			r := &sortedRun{reader: bufio.NewReader(io.NewSectionReader(s.file, start, end-start)), number: i}
			switch err := r.next(); {
			case err == nil:
				runs = append(runs, r)
			case !errors.Is(err, io.EOF):
				yield(Entry{}, err)
				return
			}
		}
		heap.Init(&runs)
		for len(runs) > 0 {
			r := runs[0]
			e := r.entry
			if err := r.next(); err == nil {
				heap.Fix(&runs, 0)
			} else if errors.Is(err, io.EOF) {
				heap.Pop(&runs)
			} else {
				yield(Entry{}, err)
				return
			}
			if len(runs) > 0 && runs[0].entry.Key == e.Key {
				continue // a later run has it as well
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// A sortedRun reads the entries of one run.
type sortedRun struct {
	reader *bufio.Reader
	number int
	entry  Entry
}

func (r *sortedRun) next() (err error) {
	r.entry, err = readEntry(r.reader)
	return err
}

// runs is a heap of runs by their next entry; among equal keys the earlier run comes first.
type runs []*sortedRun

func (r runs) Len() int      { return len(r) }
func (r runs) Swap(i, j int) { r[i], r[j] = r[j], r[i] }
func (r runs) Less(i, j int) bool {
	return cmp.Or(strings.Compare(r[i].entry.Key, r[j].entry.Key), r[i].number-r[j].number) < 0
}
func (r *runs) Push(x any) { *r = append(*r, x.(*sortedRun)) }
func (r *runs) Pop() any {
	last := (*r)[len(*r)-1]
	*r = (*r)[:len(*r)-1]
	return last
}

// Flags of an encoded entry.
const (
	flagUnreadable = 1 << iota
	flagSeen       // a Seen time follows
)

// appendEntry encodes an entry for readEntry.
func appendEntry(b []byte, e *Entry) []byte {
	var flags uint64
	if e.Unreadable {
		flags |= flagUnreadable
	}
	if !e.Seen.IsZero() {
		flags |= flagSeen
	}
	b = binary.AppendUvarint(b, flags)
	for _, text := range []string{e.Key, e.Skip, e.Fingerprint.ETag} {
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
	}
	b = binary.AppendUvarint(b, e.Fingerprint.Inode)
	for _, n := range []int64{e.Fingerprint.Size, e.Fingerprint.MTime, e.Fingerprint.CTime} {
		b = binary.AppendVarint(b, n)
	}
	if flags&flagSeen != 0 {
		b = binary.AppendVarint(b, e.Seen.UnixNano())
	}
	return b
}

// readEntry returns io.EOF at the end of the entries.
func readEntry(r *bufio.Reader) (e Entry, err error) {
	flags, err := binary.ReadUvarint(r)
	if err != nil {
		return e, err
	}
	e.Unreadable = flags&flagUnreadable != 0
	for _, text := range []*string{&e.Key, &e.Skip, &e.Fingerprint.ETag} {
		n, err := binary.ReadUvarint(r)
		if err != nil {
			return e, io.ErrUnexpectedEOF
		}
		buffer := make([]byte, n)
		if _, err := io.ReadFull(r, buffer); err != nil {
			return e, io.ErrUnexpectedEOF
		}
		*text = string(buffer)
	}
	if e.Fingerprint.Inode, err = binary.ReadUvarint(r); err != nil {
		return e, io.ErrUnexpectedEOF
	}
	numbers := []*int64{&e.Fingerprint.Size, &e.Fingerprint.MTime, &e.Fingerprint.CTime}
	var seen int64
	if flags&flagSeen != 0 {
		numbers = append(numbers, &seen)
	}
	for _, n := range numbers {
		if *n, err = binary.ReadVarint(r); err != nil {
			return e, io.ErrUnexpectedEOF
		}
	}
	if flags&flagSeen != 0 {
		e.Seen = time.Unix(0, seen)
	}
	return e, nil
}
