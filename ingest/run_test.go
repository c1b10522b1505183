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
	fx := newFixture(t)
	for i := range 95 {
		fx.tree.put(fmt.Sprintf("dir%d/file%d.md", i%7, i), fmt.Sprintf("content %d", i))
	}
	for i := range 30 { // twins, in other batches and in the same
		fx.tree.put(fmt.Sprintf("twin%d.md", i), fmt.Sprintf("content %d", i))
	}
	fx.scan()
	res := fx.mustRun()
	if res.Uploaded != 95 || res.Shared != 30 || res.Requests != 5 || res.Incomplete() {
		t.Fatalf("got %+v", res)
	}
	fx.wantOnce()
	fx.wantCounts(map[state.DocumentState]int{state.Training: 125})
	fx.check()

	fx.scan()
	if res := fx.mustRun(); res.Requests != 0 || res.Shared != 0 {
		t.Fatalf("second run: %+v", res)
	}
	// A rename, a copy and a touch send nothing.
	fx.tree.put("copy.md", "content 1")
	fx.tree.put("twin3.md", "content 3")
	fx.tree.remove("dir2/file2.md")
	fx.tree.put("renamed.md", "content 2")
	fx.scan()
	if res := fx.mustRun(); res.Requests != 0 || res.Shared != 3 {
		t.Fatalf("third run: %+v", res)
	}
}

func TestCutBoundsBatchesByDocumentsAndBytes(t *testing.T) {
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

func TestLargeContentIsReadOnce(t *testing.T) {
	fx := newFixture(t)
	fx.opts.Bytes = 1 << 20
	one, other := strings.Repeat("a", 2<<20), strings.Repeat("b", 3<<20)
	fx.tree.put("one.txt", one)
	fx.tree.put("other.txt", other)
	fx.scan()
	res := fx.mustRun()
	if res.Uploaded != 2 || fx.tree.opens != 2 {
		t.Fatalf("%+v, %d opened: want each read once", res, fx.tree.opens)
	}
	// A twin of a large one is hashed beforehand, and not sent.
	fx.tree.put("twin.txt", one)
	fx.tree.put("near.txt", strings.Repeat("c", 2<<20))
	fx.scan()
	res = fx.mustRun()
	if res.Uploaded != 1 || res.Shared != 1 {
		t.Fatalf("%+v", res)
	}
	fx.wantOnce()
	if fx.document("one.txt").SHA256 != fx.document("twin.txt").SHA256 {
		t.Error("the twin has another hash")
	}
}

func TestLargeTwinsAreUploadedOnce(t *testing.T) {
	fx := newFixture(t)
	fx.opts.Documents = 1
	same := strings.Repeat("a", 2<<20)
	for i := range 6 {
		fx.tree.put(fmt.Sprintf("%d.txt", i), same)
	}
	fx.scan()
	res := fx.mustRun()
	if res.Uploaded != 1 || res.Shared != 5 {
		t.Fatalf("%+v", res)
	}
	fx.wantOnce()
}

// Another process may reserve a content between Resolve and Seal. Then that document leaves the batch, and the others go on.
func TestDocumentKnownAtTheSealLeavesTheBatch(t *testing.T) {
	fx := newFixture(t)
	for i := range 5 {
		fx.tree.put(fmt.Sprintf("%d.md", i), fmt.Sprint(i))
	}
	fx.scan()
	first := true
	fx.around = func(j journal) journal {
		return hooks{journal: j, seal: func(ctx context.Context, id *state.Upload, seals []state.Seal) error {
			if first {
				first = false
				return &state.SealError{Known: []int{1}, Lost: []int{3}}
			}
			return j.Seal(ctx, id, seals)
		}}
	}
	fx.opts.Transfers = 1
	res := fx.mustRun()
	if fx.service.count("1") != 1 || fx.service.count("3") != 0 || res.Uploaded != 4 || res.Requests != 3 {
		t.Fatalf("%+v: content 1 %d times, content 3 %d times", res, fx.service.count("1"), fx.service.count("3"))
	}
}

// A document whose content Seal always knows and Resolve never does must not keep a run going for ever.
func TestDocumentAlwaysKnownAtTheSealIsRetriedLater(t *testing.T) {
	fx := newFixture(t)
	fx.opts.Patience = time.Millisecond
	fx.tree.put("1.md", "1")
	fx.scan()
	fx.around = func(j journal) journal {
		return hooks{journal: j, seal: func(context.Context, *state.Upload, []state.Seal) error {
			return &state.SealError{Known: []int{0}}
		}}
	}
	res := fx.mustRun()
	if res.Uploaded != 0 || res.Deferred != 1 || res.Why == "" || res.Requests > 2*(maxRounds+1) {
		t.Fatalf("%+v", res)
	}
}

func TestUnreadDocumentsAreCountedByTheirCause(t *testing.T) {
	fx := newFixture(t)
	fx.opts.Patience = time.Millisecond
	for _, key := range []string{"changed.md", "gone.md", "locked.md", "fine.md", "large-changed.bin", "large-gone.bin", "large-locked.bin"} {
		content := key
		if strings.HasPrefix(key, "large") {
			content = strings.Repeat(key, 100_000)
		}
		fx.tree.put(key, content)
	}
	fx.scan()
	denied := errors.New("permission denied")
	fx.tree.broken = func(key string) error {
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
	res := fx.mustRun()
	if res.Uploaded != 1 || res.Changed != 2 || res.Vanished != 2 || res.Unreadable != 2 || !res.Incomplete() {
		t.Fatalf("%+v", res)
	}
	if len(res.Unread) != 2 || !strings.Contains(res.Unread[0].Reason, "permission denied") {
		t.Fatalf("unread: %+v", res.Unread)
	}
	fx.check()
}

// A store may answer a read with another version than it lists, before or after the listing, so that no scan finds a change. The
// document is late then, and not lost.
func TestDocumentThatHasItsListedVersionAgainIsUploadedWithinFiveMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fx := newFixture(t)
		fx.tree.put("a.md", "a")
		fx.scan()
		fx.tree.broken = func(string) error { return state.ErrChanged }
		if res := fx.mustRun(); res.Uploaded != 0 || res.Changed != 1 {
			t.Fatalf("%+v", res)
		}
		fx.tree.broken = nil
		fx.scan() // finds no change
		if res := fx.mustRun(); res.Uploaded != 0 {
			t.Fatalf("uploaded before its time: %+v", res)
		}
		time.Sleep(5 * time.Minute)
		if res := fx.mustRun(); res.Uploaded != 1 {
			t.Fatalf("%+v", res)
		}
		fx.check()
	})
}

// A file whose bytes change between hashing and upload, under the same fingerprint, is not sent with the wrong hash.
func TestDocumentWithOtherBytesThanHashedIsNotSealed(t *testing.T) {
	fx := newFixture(t)
	fx.opts.Patience = time.Millisecond
	fx.tree.put("a.txt", strings.Repeat("a", keepSize+1))
	fx.tree.put("b.txt", "b")
	fx.scan()
	fx.tree.broken = func(key string) error {
		if key == "a.txt" && fx.tree.opens > 2 {
			fx.tree.files[key].content[0] = 'x'
		}
		return nil
	}
	res := fx.mustRun()
	if res.Uploaded != 1 || res.Changed != 1 || fx.service.count("b") != 1 {
		t.Fatalf("%+v", res)
	}
}

func TestLeftBehindContentIsSharedOnlyIfItsSourceExists(t *testing.T) {
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
			fx := newFixture(t)
			fx.opts.Patience = time.Millisecond
			fx.tree.put("a.md", "old")
			fx.scan()
			fx.mustRun()
			fx.tree.put("a.md", "new")
			fx.scan()
			fx.mustRun()
			fx.tree.put("a.md", "old") // reverted
			fx.scan()
			if !c.there {
				fx.service.sources = map[int64]state.SHA256{}
			}
			fx.service.status = func(int) error { return c.err }
			before := fx.service.posted()
			res := fx.mustRun()
			if got := fx.service.posted() - before; got != c.requests {
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
			fx.check()
		})
	}
}

// An answer that lacks a source by mistake does not cause another upload of its content.
func TestSourceMissingFromOneAnswerIsAskedForAlone(t *testing.T) {
	fx := newFixture(t)
	fx.service.atMost = 1
	for _, content := range []string{"old", "new", "old"} {
		for i := range 5 {
			fx.tree.put(fmt.Sprintf("%d.md", i), fmt.Sprint(content, i))
		}
		fx.scan()
		fx.mustRun()
	}
	for i := range 5 {
		if n := fx.service.count(fmt.Sprint("old", i)); n != 1 {
			t.Errorf("content %d was sent %d times", i, n)
		}
	}
	fx.check()
	// The API may answer 404 for a source that is gone.
	for i := range 5 {
		fx.tree.put(fmt.Sprintf("%d.md", i), fmt.Sprint("new", i))
	}
	fx.scan()
	fx.service.sources = map[int64]state.SHA256{}
	first := true
	fx.service.status = func(int) error {
		if first {
			first = false
			return nil
		}
		return apiError(404, "SOURCE_NOT_FOUND", "no such source")
	}
	if res := fx.mustRun(); res.Uploaded != 5 {
		t.Errorf("%+v", res)
	}
}

// revert uploads documents, edits them, and reverts the edit, so that the next run verifies their old sources. It returns the
// ids of those.
func (fx *fixture) revert(documents int) (left []int64) {
	fx.t.Helper()
	for _, version := range []string{"old", "new", "old"} {
		for i := range documents {
			fx.tree.put(fmt.Sprintf("%d.md", i), fmt.Sprint(version, i))
		}
		if fx.scan(); left == nil {
			fx.mustRun()
			for id := range fx.service.sources {
				left = append(left, id)
			}
		} else if version == "new" {
			fx.mustRun()
		}
	}
	slices.Sort(left)
	return left
}

func notFound() error { return apiError(404, "SOURCE_NOT_FOUND", "no such source") }

// The API may answer 404 or 400 to a request with an id that it does not know.
func TestUnknownIDDoesNotKeepTheOthersFromBeingShared(t *testing.T) {
	for _, c := range []struct {
		name             string
		err              error
		uploaded, pended int
	}{
		{name: "404", err: notFound(), uploaded: 1},
		{name: "400", err: apiError(400, "BAD_REQUEST", "invalid id"), pended: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			fx := newFixture(t)
			fx.opts.Patience = time.Millisecond
			unknown := fx.revert(20)[7]
			delete(fx.service.sources, unknown)
			fx.service.refuseIDs = func(ids []int64) error {
				if slices.Contains(ids, unknown) {
					return c.err
				}
				return nil
			}
			if res := fx.mustRun(); res.Shared != 19 || res.Uploaded != c.uploaded || res.Deferred != c.pended {
				t.Fatalf("%+v", res)
			}
			fx.check()
		})
	}
}

// A 404 for every status request proves nothing about the sources: nothing is uploaded again.
func TestAPIThatAnswers404ToEveryStatusRequestCausesNoUpload(t *testing.T) {
	for name, err := range map[string]error{"of the API": notFound(), "of a gateway": apiError(404, "", "page not found")} {
		t.Run(name, func(t *testing.T) {
			fx := newFixture(t)
			fx.opts.Patience = time.Millisecond
			fx.revert(3)
			fx.service.refuseIDs = func([]int64) error { return err }
			before := fx.service.posted()
			if res := fx.mustRun(); fx.service.posted() != before || res.Deferred != 3 || res.Why == "" {
				t.Fatalf("%d requests, %+v", fx.service.posted()-before, res)
			}
			fx.check()
		})
	}
}

// A single left-behind source that the API answers with a 404 is gone if the API accepts another status request.
func TestSingleSourceWithA404IsUploadedAgain(t *testing.T) {
	fx := newFixture(t)
	unknown := fx.revert(1)[0]
	delete(fx.service.sources, unknown)
	fx.service.refuseIDs = func(ids []int64) error {
		if slices.Contains(ids, unknown) {
			return notFound()
		}
		return nil
	}
	if res := fx.mustRun(); res.Uploaded != 1 || res.Incomplete() {
		t.Fatalf("%+v", res)
	}
	fx.check()
}

func TestDeniedVerificationIsFatal(t *testing.T) {
	fx := newFixture(t)
	fx.tree.put("a.md", "old")
	fx.scan()
	fx.mustRun()
	fx.tree.put("a.md", "new")
	fx.scan()
	fx.mustRun()
	fx.tree.put("a.md", "old")
	fx.scan()
	fx.service.status = func(int) error { return apiError(401, "JWT_SIGNATURE_EXCEPTION", "Invalid JWT token") }
	_, err := fx.run(t.Context())
	if _, ok := errors.AsType[*FatalError](err); !ok {
		t.Fatalf("got %v", err)
	}
	fx.wantCounts(map[state.DocumentState]int{state.Pending: 1})
}

func TestRunEndsAtItsBudget(t *testing.T) {
	t.Run("max-transfer", func(t *testing.T) {
		fx := newFixture(t)
		fx.opts.Documents, fx.opts.MaxTransfer = 2, 50
		for i := range 20 {
			fx.tree.put(fmt.Sprintf("%02d.md", i), fmt.Sprintf("content %02d", i)) // of 10 bytes
		}
		fx.scan()
		res, err := fx.run(t.Context())
		budget, ok := errors.AsType[*BudgetError](err)
		if !ok || budget.Limit != "max-transfer" {
			t.Fatalf("got %v", err)
		}
		if res.Uploaded != 4 || res.Bytes != 40 || res.Deferred != 16 {
			t.Fatalf("%+v", res)
		}
		fx.wantCounts(map[state.DocumentState]int{state.Training: 4, state.Pending: 16})
	})
	t.Run("max-duration", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			fx := newFixture(t)
			fx.service.latency = time.Minute
			fx.opts.Documents, fx.opts.Transfers, fx.opts.MaxDuration = 1, 2, 90*time.Second
			for i := range 10 {
				fx.tree.put(fmt.Sprintf("%02d.md", i), fmt.Sprint(i))
			}
			fx.scan()
			start := time.Now()
			res, err := fx.run(t.Context())
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
			fx := newFixture(t)
			fx.opts.BytesPerSecond = 100_000
			fx.tree.put("a.bin", strings.Repeat("a", 1_000_000))
			fx.scan()
			start := time.Now()
			fx.mustRun()
			if took := time.Since(start); took < 9*time.Second || took > 11*time.Second {
				t.Fatalf("took %v for 10 s worth of bytes", took)
			}
		})
	})
}

func TestProgressAddsUp(t *testing.T) {
	fx := newFixture(t)
	var sent, documents, bytes counter
	fx.opts.Progress = Progress{
		Sent: sent.add,
		Done: func(n int, b int64) { documents.add(int64(n)); bytes.add(b) },
	}
	for i := range 30 {
		fx.tree.put(fmt.Sprintf("%02d.md", i), fmt.Sprintf("content %02d", i%20))
	}
	fx.scan()
	fx.mustRun()
	if sent.n.Load() != 200 || documents.n.Load() != 30 || bytes.n.Load() != 300 {
		t.Fatalf("sent %d, %d documents of %d bytes", sent.n.Load(), documents.n.Load(), bytes.n.Load())
	}
}

func TestTextFormatsAreSentAsFieldsWithUniqueNames(t *testing.T) {
	fx := newFixture(t)
	fx.opts.SendText = true
	api := &recorder{service: fx.service}
	fx.tree.put("a/b.md", "one")
	fx.tree.put("a__b.md", "two") // the same name
	fx.tree.put("c.pdf", "three")
	fx.tree.put("d7", "four")
	fx.tree.put("status.txt", "five")
	fx.scan()
	in := New(fx.store, api, fx.tree, fx.sync, fx.opts)
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
		// The order of the claim decides which of the two documents of one name is the text.
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

func TestFewTwinsAreClaimedAtATime(t *testing.T) {
	fx := newFixture(t)
	const twins = 3 * maxWaiting
	for i := range twins {
		fx.tree.put(fmt.Sprintf("%05d.md", i), "the same")
	}
	fx.scan()
	most := 0
	fx.opts.Progress.Request = func(Request) {
		counts, err := fx.store.Documents.Outstanding(t.Context(), fx.sync.ID)
		if err != nil {
			t.Error(err)
		}
		most = max(most, counts[state.Uploading])
	}
	if res := fx.mustRun(); res.Uploaded != 1 || res.Shared != twins-1 || fx.service.posted() != 1 {
		t.Fatalf("%+v", res)
	}
	if most == 0 || most > maxWaiting+2*claimAtOnce {
		t.Errorf("%d were claimed at a time", most)
	}
	fx.check()
}
