package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

func TestRunUploadsEachContentOnce(t *testing.T) {
	w := newWorld(t)
	for i := range 95 {
		w.tree.put(fmt.Sprintf("dir%d/file%d.md", i%7, i), fmt.Sprintf("content %d", i))
	}
	for i := range 30 { // twins, in other batches and in the same
		w.tree.put(fmt.Sprintf("twin%d.md", i), fmt.Sprintf("content %d", i))
	}
	w.scan()
	res := w.mustRun()
	if res.Uploaded != 95 || res.Shared != 30 || res.Requests != 5 || res.Incomplete() {
		t.Fatalf("got %+v", res)
	}
	w.wantOnce()
	w.wantCounts(map[state.DocumentState]int{state.Training: 125})
	w.check()

	w.scan()
	if res := w.mustRun(); res.Requests != 0 || res.Shared != 0 {
		t.Fatalf("second run: %+v", res)
	}
	// A rename, a copy and a touch send nothing.
	w.tree.put("copy.md", "content 1")
	w.tree.put("twin3.md", "content 3")
	w.tree.remove("dir2/file2.md")
	w.tree.put("renamed.md", "content 2")
	w.scan()
	if res := w.mustRun(); res.Requests != 0 || res.Shared != 3 {
		t.Fatalf("third run: %+v", res)
	}
}

func TestBatchesAreBounded(t *testing.T) {
	for _, c := range []struct {
		name             string
		sizes            []int64
		documents        int
		bytes            int64
		wantN            int
		wantTotal        int64
		wantRestHasFirst bool
	}{
		{name: "none", documents: 3, bytes: 10},
		{name: "by number", sizes: []int64{1, 1, 1, 1}, documents: 3, bytes: 10, wantN: 3, wantTotal: 3},
		{name: "by bytes", sizes: []int64{4, 4, 4}, documents: 3, bytes: 10, wantN: 2, wantTotal: 8},
		{name: "just", sizes: []int64{5, 5, 1}, documents: 3, bytes: 10, wantN: 2, wantTotal: 10},
		{name: "a large one alone", sizes: []int64{50, 1}, documents: 3, bytes: 10, wantN: 1, wantTotal: 50},
		{name: "a large one later", sizes: []int64{1, 50}, documents: 3, bytes: 10, wantN: 1, wantTotal: 1},
	} {
		var docs []*document
		for _, size := range c.sizes {
			docs = append(docs, &document{ClaimedDocument: state.ClaimedDocument{Fingerprint: state.Fingerprint{Size: size}}})
		}
		if n, total := cut(docs, c.documents, c.bytes); n != c.wantN || total != c.wantTotal {
			t.Errorf("%s: got %d of %d bytes, want %d of %d", c.name, n, total, c.wantN, c.wantTotal)
		}
	}
}

func TestLargeContentsAreHashedOnTheWay(t *testing.T) {
	w := newWorld(t)
	w.opts.Bytes = 1 << 20
	one, other := strings.Repeat("a", 2<<20), strings.Repeat("b", 3<<20)
	w.tree.put("one.txt", one)
	w.tree.put("other.txt", other)
	w.scan()
	res := w.mustRun()
	if res.Uploaded != 2 || w.tree.opens != 2 {
		t.Fatalf("%+v, %d opened: want each read once", res, w.tree.opens)
	}
	// A twin of a large one is hashed beforehand, and not sent.
	w.tree.put("twin.txt", one)
	w.tree.put("near.txt", strings.Repeat("c", 2<<20))
	w.scan()
	res = w.mustRun()
	if res.Uploaded != 1 || res.Shared != 1 {
		t.Fatalf("%+v", res)
	}
	w.wantOnce()
	if w.document("one.txt").SHA256 != w.document("twin.txt").SHA256 {
		t.Error("the twin has another hash")
	}
}

func TestLargeTwinsInFlight(t *testing.T) {
	w := newWorld(t)
	w.opts.Documents = 1
	same := strings.Repeat("a", 2<<20)
	for i := range 6 {
		w.tree.put(fmt.Sprintf("%d.txt", i), same)
	}
	w.scan()
	res := w.mustRun()
	if res.Uploaded != 1 || res.Shared != 5 {
		t.Fatalf("%+v", res)
	}
	w.wantOnce()
}

// A content that another process reserves between looking it up and sealing is known
// at the seal; that member leaves and the others go on.
func TestKnownAtTheSeal(t *testing.T) {
	w := newWorld(t)
	for i := range 5 {
		w.tree.put(fmt.Sprintf("%d.md", i), fmt.Sprint(i))
	}
	w.scan()
	first := true
	w.around = func(j journal) journal {
		return hooks{journal: j, seal: func(ctx context.Context, id int64, seals []state.Seal) error {
			if first {
				first = false
				return &state.SealError{Known: []int{1}, Lost: []int{3}}
			}
			return j.Seal(ctx, id, seals)
		}}
	}
	w.opts.Transfers = 1
	res := w.mustRun()
	if w.service.count("1") != 1 || w.service.count("3") != 0 || res.Uploaded != 4 || res.Requests != 3 {
		t.Fatalf("%+v: content 1 %d times, content 3 %d times", res, w.service.count("1"), w.service.count("3"))
	}
}

// A document that is known whenever it is sealed and unknown whenever it is looked up
// must not keep a run busy for ever.
func TestKnownForEver(t *testing.T) {
	w := newWorld(t)
	w.opts.Patience = time.Millisecond
	w.tree.put("1.md", "1")
	w.scan()
	w.around = func(j journal) journal {
		return hooks{journal: j, seal: func(context.Context, int64, []state.Seal) error {
			return &state.SealError{Known: []int{0}}
		}}
	}
	res := w.mustRun()
	if res.Uploaded != 0 || res.Deferred != 1 || res.Why == "" || res.Requests > 2*(maxRounds+1) {
		t.Fatalf("%+v", res)
	}
}

func TestUnreadDocuments(t *testing.T) {
	w := newWorld(t)
	w.opts.Patience = time.Millisecond
	for _, key := range []string{"changed.md", "gone.md", "locked.md", "fine.md", "large-changed.bin", "large-gone.bin", "large-locked.bin"} {
		content := key
		if strings.HasPrefix(key, "large") {
			content = strings.Repeat(key, 100_000)
		}
		w.tree.put(key, content)
	}
	w.scan()
	denied := errors.New("permission denied")
	w.tree.broken = func(key string) error {
		switch {
		case strings.Contains(key, "locked"):
			return denied
		case strings.Contains(key, "gone"):
			return fmt.Errorf("no file: %w", errNotExist)
		case strings.Contains(key, "changed"):
			return state.ErrChanged
		}
		return nil
	}
	res := w.mustRun()
	if res.Uploaded != 1 || res.Changed != 2 || res.Vanished != 2 || res.Unreadable != 2 || !res.Incomplete() {
		t.Fatalf("%+v", res)
	}
	if len(res.Unread) != 2 || !strings.Contains(res.Unread[0].Reason, "permission denied") {
		t.Fatalf("unread: %+v", res.Unread)
	}
	w.check()
}

// A file that becomes another between hashing and sending, its fingerprint unchanged,
// is not sent under the wrong hash.
func TestOtherContentThanHashed(t *testing.T) {
	w := newWorld(t)
	w.opts.Patience = time.Millisecond
	w.tree.put("a.txt", strings.Repeat("a", keepSize+1))
	w.tree.put("b.txt", "b")
	w.scan()
	w.tree.broken = func(key string) error {
		if key == "a.txt" && w.tree.opens > 2 {
			w.tree.files[key].content[0] = 'x'
		}
		return nil
	}
	res := w.mustRun()
	if res.Uploaded != 1 || res.Changed != 1 || w.service.count("b") != 1 {
		t.Fatalf("%+v", res)
	}
}

func TestLeftBehindContentIsVerified(t *testing.T) {
	for _, c := range []struct {
		name     string
		there    bool
		err      error
		requests int
	}{
		{name: "still there", there: true, requests: 0},
		{name: "removed by hand", there: false, requests: 1},
		{name: "cannot be asked", there: true, err: apiError(500, "", "oops"), requests: 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.opts.Patience = time.Millisecond
			w.tree.put("a.md", "old")
			w.scan()
			w.mustRun()
			w.tree.put("a.md", "new")
			w.scan()
			w.mustRun()
			w.tree.put("a.md", "old") // reverted
			w.scan()
			if !c.there {
				w.service.sources = map[int64]state.SHA256{}
			}
			w.service.status = func(int) error { return c.err }
			before := w.service.posted()
			res := w.mustRun()
			if got := w.service.posted() - before; got != c.requests {
				t.Fatalf("%d requests, want %d: %+v", got, c.requests, res)
			}
			if c.err != nil {
				if res.Deferred != 1 {
					t.Fatalf("%+v", res)
				}
				return
			}
			if res.Shared+res.Uploaded != 1 || res.Incomplete() {
				t.Fatalf("%+v", res)
			}
			w.check()
		})
	}
}

// An answer that lacks a source by mistake is no reason to upload its content again.
func TestVerifyingAtMost(t *testing.T) {
	w := newWorld(t)
	w.service.atMost = 1
	for _, content := range []string{"old", "new", "old"} {
		for i := range 5 {
			w.tree.put(fmt.Sprintf("%d.md", i), fmt.Sprint(content, i))
		}
		w.scan()
		w.mustRun()
	}
	for i := range 5 {
		if n := w.service.count(fmt.Sprint("old", i)); n != 1 {
			t.Errorf("content %d was sent %d times", i, n)
		}
	}
	w.check()
	// Where there is none any more, the API may answer so.
	for i := range 5 {
		w.tree.put(fmt.Sprintf("%d.md", i), fmt.Sprint("new", i))
	}
	w.scan()
	w.service.sources = map[int64]state.SHA256{}
	first := true
	w.service.status = func(int) error {
		if first {
			first = false
			return nil
		}
		return apiError(404, "SOURCE_NOT_FOUND", "no such source")
	}
	if res := w.mustRun(); res.Uploaded != 5 {
		t.Errorf("%+v", res)
	}
}

func TestVerifyingWithABadToken(t *testing.T) {
	w := newWorld(t)
	w.tree.put("a.md", "old")
	w.scan()
	w.mustRun()
	w.tree.put("a.md", "new")
	w.scan()
	w.mustRun()
	w.tree.put("a.md", "old")
	w.scan()
	w.service.status = func(int) error { return apiError(401, "JWT_SIGNATURE_EXCEPTION", "Invalid JWT token") }
	_, err := w.run(t.Context())
	if _, ok := errors.AsType[*FatalError](err); !ok {
		t.Fatalf("got %v", err)
	}
	w.wantCounts(map[state.DocumentState]int{state.Pending: 1})
}

func TestBudgets(t *testing.T) {
	t.Run("max-transfer", func(t *testing.T) {
		w := newWorld(t)
		w.opts.Documents, w.opts.MaxTransfer = 2, 50
		for i := range 20 {
			w.tree.put(fmt.Sprintf("%02d.md", i), fmt.Sprintf("content %02d", i)) // of 10 bytes
		}
		w.scan()
		res, err := w.run(t.Context())
		budget, ok := errors.AsType[*BudgetError](err)
		if !ok || budget.Limit != "max-transfer" {
			t.Fatalf("got %v", err)
		}
		if res.Uploaded != 4 || res.Bytes != 40 || res.Deferred != 16 {
			t.Fatalf("%+v", res)
		}
		w.wantCounts(map[state.DocumentState]int{state.Training: 4, state.Pending: 16})
	})
	t.Run("max-duration", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.service.latency = time.Minute
			w.opts.Documents, w.opts.Transfers, w.opts.MaxDuration = 1, 2, 90*time.Second
			for i := range 10 {
				w.tree.put(fmt.Sprintf("%02d.md", i), fmt.Sprint(i))
			}
			w.scan()
			start := time.Now()
			res, err := w.run(t.Context())
			budget, ok := errors.AsType[*BudgetError](err)
			if !ok || budget.Limit != "max-duration" {
				t.Fatalf("got %v", err)
			}
			if res.Uploaded != 4 || res.Deferred != 6 || time.Since(start) != 2*time.Minute {
				t.Fatalf("%+v after %v", res, time.Since(start))
			}
		})
	})
	t.Run("bytes a second", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.opts.BytesPerSecond = 100_000
			w.tree.put("a.bin", strings.Repeat("a", 1_000_000))
			w.scan()
			start := time.Now()
			w.mustRun()
			if took := time.Since(start); took < 9*time.Second || took > 11*time.Second {
				t.Fatalf("took %v for 10 s worth of bytes", took)
			}
		})
	})
}

func TestProgressAddsUp(t *testing.T) {
	w := newWorld(t)
	var hashed, sent, documents, bytes counter
	w.opts.Progress = Progress{
		Hashed: hashed.add,
		Sent:   sent.add,
		Done:   func(n int, b int64) { documents.add(int64(n)); bytes.add(b) },
	}
	for i := range 30 {
		w.tree.put(fmt.Sprintf("%02d.md", i), fmt.Sprintf("content %02d", i%20))
	}
	w.scan()
	w.mustRun()
	if hashed.n.Load() != 300 || sent.n.Load() != 200 || documents.n.Load() != 30 || bytes.n.Load() != 300 {
		t.Fatalf("hashed %d, sent %d, %d documents of %d bytes", hashed.n.Load(), sent.n.Load(), documents.n.Load(), bytes.n.Load())
	}
}

func TestSendText(t *testing.T) {
	w := newWorld(t)
	w.opts.SendText = true
	api := &recorder{service: w.service}
	w.tree.put("a/b.md", "one")
	w.tree.put("a__b.md", "two") // the same name
	w.tree.put("c.pdf", "three")
	w.tree.put("d7", "four")
	w.tree.put("status.txt", "five")
	w.scan()
	in := New(w.store, api, w.tree, w.sync, w.opts)
	if _, err := in.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range api.parts {
		got = append(got, p.Field+"="+p.Filename)
	}
	slices.Sort(got)
	want := []string{"a__b.md=", "d2=a__b.md", "d3=c.pdf", "d4=d7", "status.txt="}
	if slices.Sort(got); !slices.Equal(got, want) {
		// Which of the two of one name is the text is up to the order of the claim.
		t.Fatalf("got %q, want %q", got, want)
	}
}

type recorder struct {
	*service
	parts []replycx.Part
}

func (r *recorder) UploadSources(ctx context.Context, kb int64, parts []replycx.Part, opts *replycx.UploadOptions) (*replycx.UploadResult, error) {
	r.parts = append(r.parts, parts...)
	return r.service.UploadSources(ctx, kb, parts, opts)
}

// However many documents have one content, few of them are held at a time.
func TestCrowdOfTwins(t *testing.T) {
	w := newWorld(t)
	const twins = 3 * mostParked
	for i := range twins {
		w.tree.put(fmt.Sprintf("%05d.md", i), "the same")
	}
	w.scan()
	most := 0
	w.opts.Progress.Request = func(Request) {
		counts, err := w.store.Documents.Outstanding(t.Context(), w.sync.ID)
		if err != nil {
			t.Error(err)
		}
		most = max(most, counts[state.Uploading])
	}
	if res := w.mustRun(); res.Uploaded != 1 || res.Shared != twins-1 || w.service.posted() != 1 {
		t.Fatalf("%+v", res)
	}
	if most == 0 || most > mostParked+2*claimAtOnce {
		t.Errorf("%d were claimed at a time", most)
	}
	w.check()
}
