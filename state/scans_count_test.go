package state

import (
	"maps"
	"slices"
	"testing"
)

// A listed is a document as a listing shows it, and what became of it.
type listed struct {
	size, inode, mtime int64
	uploaded           bool
	skipped            bool // after its upload, if there was one
}

// The guard against mass removals counts what was uploaded and vanished, and was not renamed.
func TestCountOfAScan(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		for _, c := range []struct {
			name  string
			gone  listed
			other map[string]listed // recorded in the scan in which the document is gone
			want  ScanCount
		}{
			{"uploaded", listed{size: 5, inode: 7, mtime: 9, uploaded: true}, nil, ScanCount{Vanished: 1}},
			{"never uploaded", listed{size: 5, inode: 7, mtime: 9}, nil, ScanCount{Vanished: 1, NeverUploaded: 1}},
			{"skipped", listed{size: 5, inode: 7, mtime: 9, skipped: true}, nil, ScanCount{Vanished: 1, NeverUploaded: 1}},
			{"skipped after its upload", listed{size: 5, inode: 7, mtime: 9, uploaded: true, skipped: true}, nil, ScanCount{Vanished: 1}},
			{
				"renamed", listed{size: 5, inode: 7, mtime: 9, uploaded: true},
				map[string]listed{"new": {size: 5, inode: 7, mtime: 9}}, ScanCount{Vanished: 1, Renamed: 1},
			},
			{
				"renamed, never uploaded", listed{size: 5, inode: 7, mtime: 9},
				map[string]listed{"new": {size: 5, inode: 7, mtime: 9}}, ScanCount{Vanished: 1, Renamed: 1, NeverUploaded: 1, NeverUploadedRenamed: 1},
			},
			{
				"no new document is alike in everything", listed{size: 5, inode: 7, mtime: 9, uploaded: true},
				map[string]listed{
					"size": {size: 6, inode: 7, mtime: 9}, "inode": {size: 5, inode: 8, mtime: 9}, "mtime": {size: 5, inode: 7, mtime: 8},
					"skipped": {size: 5, inode: 7, mtime: 9, skipped: true},
				}, ScanCount{Vanished: 1},
			},
			{
				"on a root without inodes", listed{size: 5, mtime: 9, uploaded: true},
				map[string]listed{"new": {size: 5, mtime: 9}}, ScanCount{Vanished: 1},
			},
		} {
			t.Run(c.name, func(t *testing.T) {
				r := newFixture(t)
				n := r.neighbour("neighbour") // whose scans have the same numbers
				n.recordListing(nil, "")
				n.recordListing(map[string]listed{"new": {size: 5, inode: 7, mtime: 9}, "gone": c.gone, "stays": c.gone}, "gone")
				// A scan that broke off, because its process was killed, has marked a document that is there.
				r.recordListing(map[string]listed{"gone": c.gone, "marked": c.gone, "stays": {size: 1, inode: 1, mtime: 1, uploaded: true}}, "marked")
				scan := r.recordListing(c.other, "gone")
				got, err := r.s.Scans.Count(t.Context(), scan)
				r.must(err)
				if got != c.want {
					t.Errorf("count is %+v, want %+v", got, c.want)
				}
				for doc, err := range r.s.Scans.Known(t.Context(), r.sync.ID, "gone") {
					r.must(err)
					if doc.NeverUploaded != (c.want.NeverUploaded > 0) {
						t.Errorf("known as never uploaded: %v", doc.NeverUploaded)
					}
				}
				if removed, err := r.s.Scans.Finish(t.Context(), scan, "1:2"); err != nil || removed != 1 || r.states()["gone"] != Removed {
					t.Errorf("%d documents are removed, %v: %v", removed, err, r.states())
				}
			})
		}
	})
}

// recordListing records documents and a removal in a scan that does not finish. It uploads the documents that are marked as uploaded.
func (r *fixture) recordListing(docs map[string]listed, gone string) Scan {
	r.t.Helper()
	scan, err := r.s.Scans.Begin(r.ctx(), r.sync.ID, "")
	r.must(err)
	contents := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(docs)) {
		d := docs[key]
		f := Fingerprint{Size: d.size, MTime: d.mtime, CTime: d.mtime, Inode: uint64(d.inode)}
		if d.uploaded || !d.skipped {
			r.must(r.s.Scans.Record(r.ctx(), scan, []Change{{Op: Put, Key: key, Fingerprint: f}}))
		}
		if d.uploaded {
			contents[key] = key
		}
	}
	if len(contents) > 0 {
		claimed, err := r.s.Queue.Claim(r.ctx(), r.sync.ID, 100)
		r.must(err)
		upload := slices.DeleteFunc(slices.Clone(claimed), func(d ClaimedDocument) bool { return contents[d.Key] == "" })
		hashed, _ := r.resolveClaimed(upload, contents, Sharing{})
		r.trained(TrainingCompleted, r.accept(r.seal(hashed), len(hashed))...)
		_, err = r.s.Journal.Recover(r.ctx(), r.sync.ID) // gives the others back
		r.must(err)
	}
	for key, d := range docs {
		if d.skipped {
			f := Fingerprint{Size: d.size, MTime: d.mtime, CTime: d.mtime, Inode: uint64(d.inode)}
			r.must(r.s.Scans.Record(r.ctx(), scan, []Change{{Op: Skip, Key: key, Fingerprint: f, Reason: "it is empty"}}))
		}
	}
	if gone != "" {
		r.must(r.s.Scans.Record(r.ctx(), scan, []Change{{Op: Vanish, Key: gone}}))
	}
	return scan
}
