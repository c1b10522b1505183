package state

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

// reindexed returns a fixture in which a.md and b.md share a content with one source in training, and a sealed batch that
// sends the content again for a.md.
func reindexed(r *fixture) (source int64, batch *Upload) {
	r.t.Helper()
	r.put("a.md", "b.md")
	contents := map[string]string{"a.md": "A", "b.md": "A"}
	docs, _ := r.resolve(contents, Sharing{})
	source = r.accept(r.seal(docs[:1]), 1)[0]
	r.resolveClaimed([]ClaimedDocument{docs[1].ClaimedDocument}, contents, Sharing{})
	_, err := r.s.Queue.Mark(r.ctx(), r.sync.ID, Selection{Match: func(key string) bool { return key == "a.md" }})
	r.must(err)
	docs, _ = r.resolve(contents, Sharing{})
	return source, r.seal(docs)
}

func TestOutcomeDuringASealedReindexIsNotLost(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		for _, tt := range []struct {
			outcome Outcome
			want    string
		}{
			{TrainingCompleted, "a.md=pending b.md=completed"},
			{TrainingFailed, "a.md=pending b.md=failed"},
			{TrainingStuck, "a.md=pending b.md=stuck"},
			{InTraining, "a.md=pending b.md=training"},
		} {
			r := newFixture(t)
			source, batch := reindexed(r)
			r.trained(tt.outcome, source)
			r.want("a.md=uploading b.md=uploading")
			r.must(r.s.Journal.Refuse(t.Context(), batch, Refusal{Disposition: Requeue, StatusCode: 429}))
			r.want(tt.want)
		}
	})
}

func TestSourceGoneDuringASealedReindexIsNotForgotten(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		source, batch := reindexed(r)
		_, err := r.s.Inventory.MarkSourcesGone(t.Context(), r.sync.Destination.ID, []int64{source})
		r.must(err)
		r.must(r.s.Journal.Refuse(t.Context(), batch, Refusal{Disposition: Requeue, StatusCode: 429}))
		r.want("a.md=pending b.md=pending")
	})
}

// Two syncs have one content, and both are reindexed: the one that seals first uploads it for both.
func TestReindexOfTwoSyncsUploadsASharedContentOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md")
		r.upload(map[string]string{"a.md": "A"})
		o := r.other()
		contents := map[string]string{"a.md": "A", "copy.md": "A"}
		o.resolve(contents, Sharing{})
		o.want("copy.md=completed")
		for _, f := range []*fixture{r, o} {
			_, err := r.s.Queue.Mark(t.Context(), f.sync.ID, Selection{})
			r.must(err)
		}
		docs, _ := r.resolve(contents, Sharing{})
		others, _ := o.resolve(contents, Sharing{})
		b, seals := spec(o, others)
		second, err := r.s.Journal.Begin(t.Context(), b)
		r.must(err)
		ids := r.accept(r.seal(docs), 1)
		r.trained(TrainingCompleted, ids...)
		var seal *SealError
		if err := r.s.Journal.Seal(t.Context(), second, seals); !errors.As(err, &seal) || !slices.Equal(seal.Known, []int{0}) {
			t.Fatalf("the content is uploaded twice: %v", err)
		}
		r.must(r.s.Journal.Refuse(t.Context(), second, Refusal{Disposition: Requeue}))
		if up, _ := o.resolve(contents, Sharing{}); len(up) != 0 {
			t.Fatal("the mark came back with the refusal")
		}
		o.want("copy.md=completed")
	})
}

// A marked document without a content of its own keeps the mark when it is skipped as unreadable: without it, it would share the
// content that a twin has.
func TestMarkOfADocumentWithoutAContentOutlivesAnUnreadableFile(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.md")
		contents := map[string]string{"a.md": "A", "b.md": "A"}
		r.upload(contents)
		r.put("b.md")
		_, err := r.s.Queue.Mark(r.ctx(), r.sync.ID, Selection{Match: func(key string) bool { return key == "b.md" }})
		r.must(err)
		docs, err := r.s.Queue.Claim(t.Context(), r.sync.ID, 10)
		r.must(err)
		r.must(r.s.Queue.MarkUnreadable(t.Context(), docs[0], "permission denied"))
		r.want("a.md=completed b.md=skipped")
		r.put("b.md")
		if up, _ := r.resolve(contents, Sharing{}); len(up) != 1 {
			t.Fatal("the document is not uploaded once more")
		}
	})
}

// A document is reindexed, and changes while its upload waits for the answer, which is a refusal. The mark of the reindex was for the old
// version: the new version is not uploaded if the knowledge base has its content already.
func TestRefusedReindexOfADocumentThatHasChangedMarksNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		for _, resolved := range []bool{false, true} {
			t.Run(fmt.Sprintf("resolved before the refusal %t", resolved), func(t *testing.T) {
				r := newFixture(t)
				r.put("other.md")
				r.upload(map[string]string{"other.md": "B"})
				_, batch := reindexed(r)
				r.put("a.md")
				newer := func() {
					if docs, _ := r.resolve(map[string]string{"a.md": "B"}, Sharing{}); len(docs) > 0 {
						t.Fatal("the content of other.md is to be uploaded again")
					}
				}
				if resolved {
					newer()
				}
				r.must(r.s.Journal.Refuse(t.Context(), batch, Refusal{Disposition: Requeue, StatusCode: 429}))
				if !resolved {
					newer()
				}
				r.want("a.md=completed b.md=training other.md=completed")
				r.put("a.md") // saved again without a change
				newer()
			})
		}
	})
}
