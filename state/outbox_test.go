package state

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"
)

// enqueue makes the new items the body of a message, or fails with the error of the body.
func (r *fixture) enqueue(event string, failure error, items ...string) (int, error) {
	var fresh []string
	return r.s.Outbox.Enqueue(r.ctx(), r.sync.ID, event, inOrder(items), func(item string) { fresh = append(fresh, item) },
		func() ([]byte, error) { return []byte(strings.Join(fresh, " ")), failure })
}

func inOrder(items []string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, item := range items {
			if !yield(item, nil) {
				return
			}
		}
	}
}

func TestEnqueueReportsNewItemsOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		enqueue := func(event string, items ...string) int {
			t.Helper()
			n, err := r.enqueue(event, nil, items...)
			r.must(err)
			return n
		}
		due := func() (all []Message) {
			t.Helper()
			all, err := r.s.Outbox.Due(r.ctx(), r.sync.ID, 10)
			r.must(err)
			return all
		}
		bodies := func() string {
			var out []string
			for _, n := range due() {
				out = append(out, n.Event+":"+string(n.Body))
			}
			return strings.Join(out, ", ")
		}
		if at, err := r.s.Outbox.NextDue(r.ctx(), r.sync.ID); err != nil || !at.IsZero() {
			t.Fatalf("without messages the next is at %v, %v", at, err)
		}
		if n := enqueue("failure"); n != 0 || bodies() != "" {
			t.Fatalf("no item is true, and %d were reported: %s", n, bodies())
		}
		enqueue("failure", "a", "b", "b")
		enqueue("failure", "a", "b")
		enqueue("orphan", "a")
		if got := bodies(); got != "failure:a b, orphan:a" {
			t.Fatalf("due are %s", got)
		}
		enqueue("failure", "b", "c") // a is true no more
		enqueue("failure", "a", "b") // and is true again
		if got := bodies(); got != "failure:a b, orphan:a, failure:c, failure:a" {
			t.Fatalf("due are %s", got)
		}
		refused := errors.New("no body")
		if _, err := r.enqueue("failure", refused, "a", "b", "d"); !errors.Is(err, refused) {
			t.Fatalf("the body's error is %v", err)
		}
		if n := enqueue("failure", "a", "b", "d"); n != 1 {
			t.Fatal("an item whose message failed counts as reported")
		}

		all := due()
		r.must(r.s.Outbox.Ack(r.ctx(), all[0].ID))
		r.must(r.s.Outbox.Retry(r.ctx(), all[1].ID, time.Now().Add(time.Hour)))
		if got := bodies(); got != "failure:c, failure:a, failure:d" {
			t.Fatalf("due are %s", got)
		}
		for _, n := range due() {
			r.must(r.s.Outbox.Ack(r.ctx(), n.ID))
		}
		at, err := r.s.Outbox.NextDue(r.ctx(), r.sync.ID)
		r.must(err)
		if d := time.Until(at); d < 59*time.Minute || d > time.Hour {
			t.Fatalf("the next message is in %v", d)
		}
		r.must(r.s.Outbox.Retry(r.ctx(), all[1].ID, time.Now().Add(-time.Second)))
		if got := due(); len(got) != 1 || got[0].Attempts != 2 || got[0].Event != "orphan" || time.Since(got[0].CreatedAt) > time.Minute {
			t.Fatalf("due are %+v", got)
		}
	})
}

func TestChangeTokenChangesWithDocumentsAndUploads(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		seen := map[string]string{}
		step := func(name string) {
			t.Helper()
			time.Sleep(2 * time.Millisecond) // times are in milliseconds
			m, err := r.s.Documents.ChangeToken(r.ctx(), r.sync.ID)
			r.must(err)
			if again, err := r.s.Documents.ChangeToken(r.ctx(), r.sync.ID); err != nil || again != m {
				t.Fatalf("%s: %q and %q, %v", name, m, again, err)
			}
			if before, twice := seen[m]; twice {
				t.Errorf("%s and %s have the same token", before, name)
			}
			seen[m] = name
		}
		step("nothing")
		r.put("a.md")
		step("recorded")
		r.upload(map[string]string{"a.md": "A"})
		step("uploaded")
		r.put("a.md")
		step("changed")
		r.vanish("a.md")
		step("removed")
	})
}

// A new document does not rest, and a wrong clock never makes a document wait longer.
func TestChangedDocumentRestsAfterItsUpload(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		put := func(rest time.Duration, keys ...string) {
			t.Helper()
			scan, err := r.s.Scans.Begin(r.ctx(), r.sync.ID, "")
			r.must(err)
			scan.Rest = rest
			var cs []Change
			for _, k := range keys {
				cs = append(cs, Change{Op: Put, Key: k, Fingerprint: Fingerprint{Size: 10, MTime: scan.ID}})
			}
			r.must(r.s.Scans.Record(r.ctx(), scan, cs))
		}
		claimed := func() []string {
			t.Helper()
			docs, err := r.s.Queue.Claim(r.ctx(), r.sync.ID, 100)
			r.must(err)
			var keys []string
			for _, d := range docs {
				keys = append(keys, d.Key)
			}
			r.must(r.s.Queue.Release(r.ctx(), docs, time.Time{}, false))
			return keys
		}
		put(time.Minute, "a.md")
		r.upload(map[string]string{"a.md": "A"})
		put(time.Minute, "a.md", "b.md")
		if got := claimed(); !slices.Equal(got, []string{"b.md"}) {
			t.Fatalf("claimed %v at once", got)
		}
		put(time.Minute, "a.md") // once more: it does not wait for longer
		due := func() time.Duration {
			t.Helper()
			d, err := r.s.Documents.Get(r.ctx(), r.sync.ID, "a.md")
			r.must(err)
			return time.Until(d.NextAttempt)
		}
		if d := due(); d > time.Minute || d < 50*time.Second {
			t.Fatalf("due in %v", d)
		}
		for _, tt := range []struct {
			age, rest time.Duration
			held      bool
		}{
			{2 * time.Minute, time.Minute, false},
			{30 * time.Second, time.Minute, true},
			{30 * time.Second, 0, false},
			{-time.Hour, time.Minute, false}, // the clock was set back
		} {
			r.must(r.s.update(r.ctx(), func(t *tx) error {
				_, err := t.exec(`UPDATE batches SET sealed_at = $1`, now()-tt.age.Milliseconds())
				return err
			}))
			put(tt.rest, "a.md")
			if held := due() > 0; held != tt.held {
				t.Errorf("%v after its upload, with a rest of %v: held is %v", tt.age, tt.rest, held)
			}
		}
		// A marked document does not wait.
		put(time.Hour, "a.md")
		if n, err := r.s.Queue.Mark(r.ctx(), r.sync.ID, Selection{}); err != nil || n != 2 {
			t.Fatal(n, err)
		}
		if got := fmt.Sprint(claimed()); got != "[a.md b.md]" {
			t.Errorf("claimed %s after a mark", got)
		}
	})
}

// While too many messages of an event wait, its news stay unreported; other events have room.
func TestEnqueueRefusesNewsWhileTooManyMessagesWait(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		enqueue := func(event string, items ...string) error {
			slices.Sort(items)
			_, err := r.enqueue(event, nil, items...)
			return err
		}
		var items []string
		for i := range MaxMessages {
			items = append(items, fmt.Sprint(i))
			r.must(enqueue("failure", items...))
		}
		r.must(enqueue("failure", items...)) // no news
		for range 2 {
			if err := enqueue("failure", append(items, "x", "y")...); !errors.Is(err, ErrOutboxFull) {
				t.Fatalf("with %d messages waiting: %v", MaxMessages, err)
			}
		}
		r.must(enqueue("orphan", "x"))
		if _, err := r.neighbour("neighbour").enqueue("failure", nil, "x"); err != nil {
			t.Errorf("the messages of one sync hold back those of another: %v", err)
		}
		due, err := r.s.Outbox.Due(r.ctx(), r.sync.ID, 100)
		r.must(err)
		if len(due) != MaxMessages+1 {
			t.Fatalf("%d messages wait", len(due))
		}
		r.must(r.s.Outbox.Ack(r.ctx(), due[0].ID))
		r.must(enqueue("failure", append(items, "x", "y", "z")...))
		due, err = r.s.Outbox.Due(r.ctx(), r.sync.ID, 100)
		r.must(err)
		if last := due[len(due)-1]; string(last.Body) != "x y z" {
			t.Errorf("the message after that is %q", last.Body)
		}
	})
}

// What was reported is read page by page beside the items, so that many sources that were left behind cost no memory.
func TestEnqueueComparesPageByPage(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		var all []string
		for i := range 2*pageSize + 10 {
			all = append(all, fmt.Sprintf("item %06d", i))
		}
		steps := []struct {
			items []string
			want  int
		}{
			{all[5:], len(all) - 5}, {all[5:], 0}, {all, 5}, {all[:len(all)-3], 0}, {all, 3}, {nil, 0},
			{[]string{all[pageSize], all[pageSize], all[2*pageSize]}, 2}, {all[pageSize:], len(all) - pageSize - 2},
		}
		for i, step := range steps {
			if n, err := r.enqueue("orphan", nil, step.items...); err != nil || n != step.want {
				t.Fatalf("step %d: %d new items, %v; want %d", i, n, err, step.want)
			}
		}
		if _, err := r.enqueue("orphan", nil, "b", "a"); err == nil || !strings.Contains(err.Error(), `"a" comes after "b"`) {
			t.Errorf("items that are not in order: %v", err)
		}
		unreadable := errors.New("unreadable")
		_, err := r.s.Outbox.Enqueue(r.ctx(), r.sync.ID, "orphan", func(yield func(string, error) bool) {
			_ = yield("a", nil) && yield("", unreadable)
		}, func(string) {}, func() ([]byte, error) { return nil, nil })
		if !errors.Is(err, unreadable) {
			t.Errorf("items that cannot be read: %v", err)
		}
		if n, err := r.enqueue("orphan", nil, all[pageSize:]...); n != 0 || err != nil {
			t.Errorf("after both errors %d items are new, %v", n, err)
		}
	})
}

// Without room for a message, the first new item ends the comparison: nothing is collected that cannot be reported.
func TestEnqueueWithoutRoomStopsAtTheFirstNewItem(t *testing.T) {
	r := newFixture(t)
	for i := range MaxMessages {
		_, err := r.enqueue("failure", nil, fmt.Sprintf("%02d", i))
		r.must(err)
	}
	yielded := 0
	_, err := r.s.Outbox.Enqueue(r.ctx(), r.sync.ID, "failure", func(yield func(string, error) bool) {
		for _, item := range []string{fmt.Sprintf("%02d", MaxMessages-1), "x", "y"} {
			if yielded++; !yield(item, nil) {
				return
			}
		}
	}, func(string) { t.Error("an item was added") }, func() ([]byte, error) { return nil, nil })
	if !errors.Is(err, ErrOutboxFull) || yielded != 2 {
		t.Errorf("after %d items: %v", yielded, err)
	}
}

// Another process reports an item between the comparison and the transaction. Then the item makes one message.
func TestItemThatAnotherProcessHasReportedMakesNoSecondMessage(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		_, err := r.s.Outbox.Enqueue(r.ctx(), r.sync.ID, "orphan", inOrder([]string{"a", "b"}), func(item string) {
			if item == "b" {
				_, err := r.enqueue("orphan", nil, "b")
				r.must(err)
			}
		}, func() ([]byte, error) { return []byte("a b"), nil })
		if err == nil {
			t.Error("the second report is no error")
		}
		n, err := r.enqueue("orphan", nil, "a", "b")
		r.must(err)
		due, err := r.s.Outbox.Due(r.ctx(), r.sync.ID, 10)
		r.must(err)
		if n != 1 || len(due) != 2 || string(due[0].Body) != "b" || string(due[1].Body) != "a" {
			t.Errorf("%d new items at last, and the messages %v", n, due)
		}
	})
}

// The items of one event are gone. Another event with equal items keeps its report, and makes no second message.
func TestItemsOfOneEventDoNotEndThoseOfAnother(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		for _, event := range []string{"failure", "orphan"} {
			_, err := r.enqueue(event, nil, "a")
			r.must(err)
		}
		_, err := r.enqueue("failure", nil)
		r.must(err)
		if n, err := r.enqueue("orphan", nil, "a"); n != 0 || err != nil {
			t.Errorf("%d items are reported again, %v", n, err)
		}
		if n, err := r.enqueue("failure", nil, "a"); n != 1 || err != nil {
			t.Errorf("%d items are reported, %v; want the one that was gone", n, err)
		}
	})
}
