package state

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// resolveCores claims the due documents and resolves them. contents maps keys to a content and, after a slash, its core.
func (r *fixture) resolveCores(contents map[string]string, sharing Sharing) (upload []HashedDocument, verdicts map[string]Verdict) {
	r.t.Helper()
	docs, err := r.s.Queue.Claim(r.ctx(), r.sync.ID, 100)
	r.must(err)
	var hashed []HashedDocument
	for _, d := range docs {
		_, core, hasCore := strings.Cut(contents[d.Key], "/")
		h := HashedDocument{ClaimedDocument: d, SHA256: hash(contents[d.Key]), Size: 10}
		if hasCore {
			h.Core = hash(core)
		}
		hashed = append(hashed, h)
	}
	list, err := r.s.Queue.Resolve(r.ctx(), r.sync.ID, hashed, sharing)
	r.must(err)
	verdicts = map[string]Verdict{}
	for i, v := range list {
		verdicts[hashed[i].Key] = v
		if v.Action == ActionUpload {
			upload = append(upload, hashed[i])
		}
	}
	return upload, verdicts
}

// sealCores begins and seals a batch of documents with their cores.
func (r *fixture) sealCores(docs []HashedDocument) *Upload {
	r.t.Helper()
	b, seals := spec(r, docs)
	for i, d := range docs {
		seals[i].Core = d.Core
	}
	u, err := r.s.Journal.Begin(r.ctx(), b)
	r.must(err)
	r.must(r.s.Journal.Seal(r.ctx(), u, seals))
	return u
}

// uploadCores uploads the documents that are due, and returns their sources.
func (r *fixture) uploadCores(outcome Outcome, contents map[string]string) []int64 {
	r.t.Helper()
	docs, _ := r.resolveCores(contents, Sharing{})
	ids := r.accept(r.sealCores(docs), len(docs))
	r.trained(outcome, ids...)
	return ids
}

// wantResaved puts a document and resolves it.
func (r *fixture) wantResaved(key, content string, want Verdict) []HashedDocument {
	r.t.Helper()
	r.put(key)
	docs, verdicts := r.resolveCores(map[string]string{key: content}, Sharing{})
	if v := verdicts[key]; v.Action != want.Action || v.Resaved != want.Resaved {
		r.t.Fatalf("%s with %s: %+v, want %+v", key, content, v, want)
	}
	return docs
}

var (
	resaved = Verdict{Action: ActionShare, Resaved: true}
	changed = Verdict{Action: ActionUpload}
)

func (r *fixture) document(key string) Document {
	r.t.Helper()
	d, err := r.s.Documents.Get(r.ctx(), r.sync.ID, key)
	r.must(err)
	return d
}

// wantResave checks the bytes that a document has in place of those of its content; none if content is empty.
func (r *fixture) wantResave(key, bytes, content string) {
	r.t.Helper()
	got, ok, err := r.s.Documents.Resave(r.ctx(), r.document(key).ID)
	r.must(err)
	if ok != (content != "") || ok && (got.SHA256 != hash(bytes) || got.Content != hash(content) || got.Since.IsZero() || got.SentAt.IsZero()) {
		r.t.Fatalf("%s: %+v, %t", key, got, ok)
	}
}

func (r *fixture) rows(table string) (n int) {
	r.t.Helper()
	r.must(r.s.queryOne(r.ctx(), `SELECT count(*) FROM `+table, nil, &n))
	return n
}

func TestDocumentSavedAgainKeepsItsContent(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.docx", "b.docx", "c.md")
		source := r.uploadCores(TrainingCompleted, map[string]string{"a.docx": "A/text", "b.docx": "B/text B", "c.md": "C"})[0]
		if n := r.rows("cores"); n != 2 {
			t.Errorf("%d cores of two documents with one", n)
		}
		r.wantResave("a.docx", "", "")
		r.wantResaved("a.docx", "A2/text", resaved)
		r.want("a.docx=completed b.docx=completed c.md=completed")
		r.wantResave("a.docx", "A2/text", "A/text")
		r.wantStanding(source, Live)
		history, err := r.s.Documents.History(r.ctx(), r.document("a.docx").ID)
		r.must(err)
		if last := history[len(history)-1]; !strings.HasPrefix(last.What, "saved again") || last.SHA256 != hash("A2/text") {
			t.Errorf("the last event is %+v", last)
		}
		// Touched, and saved again once more.
		r.wantResaved("a.docx", "A2/text", resaved)
		r.wantResaved("a.docx", "A3/text", resaved)
		r.wantResave("a.docx", "A3/text", "A/text")
		// As it was.
		r.wantResaved("a.docx", "A/text", Verdict{Action: ActionShare})
		r.wantResave("a.docx", "", "")
		// The core of another document does not count, nor one for a new document.
		r.wantResaved("b.docx", "B2/text", changed)
		r.put("b.docx")
		r.wantResaved("d.docx", "D/text", changed)
	})
}

func TestChangeAfterASaveIsUploaded(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.docx")
		old := r.uploadCores(TrainingCompleted, map[string]string{"a.docx": "A/text"})[0]
		r.wantResaved("a.docx", "A2/text", resaved)
		docs := r.wantResaved("a.docx", "A3/another text", changed)
		source := r.accept(r.sealCores(docs), 1)[0]
		r.want("a.docx=training")
		r.wantResave("a.docx", "", "")
		r.wantStanding(old, Superseded)
		// In training, the content is on its way.
		r.wantResaved("a.docx", "A4/another text", resaved)
		r.trained(TrainingFailed, source)
		r.want("a.docx=failed")
		r.wantResaved("a.docx", "A5/another text", changed)
	})
}

func TestSaveIsUploadedUnlessTheContentIsInTheKnowledgeBase(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("failed.docx", "marked.docx", "lost.docx", "warned.docx", "stuck.docx", "plain.docx")
		docs, _ := r.resolveCores(map[string]string{
			"failed.docx": "F/text", "marked.docx": "M/text", "lost.docx": "L/text", "warned.docx": "W/text", "stuck.docx": "S/text", "plain.docx": "P",
		}, Sharing{})
		outcomes := map[string]Outcome{"failed.docx": TrainingFailed, "stuck.docx": TrainingStuck}
		for _, d := range docs {
			if d.Key == "lost.docx" {
				continue
			}
			outcome, ok := outcomes[d.Key]
			if !ok {
				outcome = TrainingCompleted
			}
			r.trained(outcome, r.accept(r.sealCores([]HashedDocument{d}), 1)...)
		}
		r.wantResaved("failed.docx", "F2/text", changed)
		r.wantResaved("stuck.docx", "S2/text", changed)
		r.wantResaved("plain.docx", "P2/text", changed)

		r.put("warned.docx")
		_, verdicts := r.resolveCores(map[string]string{"warned.docx": "W2/text"}, Sharing{UploadResaved: true})
		if v := verdicts["warned.docx"]; v.Action != ActionUpload || !v.Resaved {
			t.Errorf("a save that is uploaded with a warning: %+v", v)
		}

		r.wantResaved("marked.docx", "M2/text", resaved)
		_, err := r.s.Queue.Mark(r.ctx(), r.sync.ID, Selection{Match: func(key string) bool { return key == "marked.docx" }})
		r.must(err)
		docs, verdicts = r.resolveCores(map[string]string{"marked.docx": "M2/text"}, Sharing{})
		if v := verdicts["marked.docx"]; v.Action != ActionUpload || v.Resaved {
			t.Fatalf("a reindex of a document that was saved again: %+v", v)
		}
		r.trained(TrainingCompleted, r.accept(r.sealCores(docs), 1)...)
		r.wantResave("marked.docx", "", "")
		if d := r.document("marked.docx"); d.SHA256 != hash("M2/text") {
			t.Errorf("after a reindex: %+v", d)
		}
	})
}

func TestSaveOfAnUncertainContentIsUploaded(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.docx")
		docs, _ := r.resolveCores(map[string]string{"a.docx": "A/text"}, Sharing{})
		u := r.sealCores(docs)
		r.wantResaved("a.docx", "A2/text", changed) // its upload is under way
		_, err := r.s.Journal.MarkUncertain(r.ctx(), u, 0, "lost")
		r.must(err)
		r.wantResaved("a.docx", "A3/text", changed)
	})
}

func TestExportKeepsCoresAndSaves(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.docx")
		r.uploadCores(TrainingCompleted, map[string]string{"a.docx": "A/text"})
		r.wantResaved("a.docx", "A2/text", resaved)
		var out bytes.Buffer
		r.must(r.s.Export(r.ctx(), &out))
		r.s = r.open(r.make(t))
		r.must(r.s.Import(r.ctx(), &out))
		r.wantResave("a.docx", "A2/text", "A/text")
		r.wantResaved("a.docx", "A3/text", resaved)
		r.want("a.docx=completed")
	})
}

func TestAdoptedContentHasItsCore(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.docx")
		docs, err := r.s.Queue.ClaimAll(r.ctx(), r.sync.ID, 0, 10)
		r.must(err)
		adoption := Adoption{HashedDocument: HashedDocument{ClaimedDocument: docs[0], SHA256: hash("A"), Size: 10, Core: hash("text")}, Name: "a.docx"}
		adopted, err := r.s.Journal.Adopt(r.ctx(), r.sync.ID, []Adoption{adoption}, Sharing{})
		if err != nil || !adopted[0] {
			t.Fatalf("%v, %v", adopted, err)
		}
		r.wantResaved("a.docx", "A2/text", resaved)
		is, err := r.s.Documents.IsResaved(r.ctx(), r.sync.ID, "a.docx", hash("text"))
		if err != nil || !is {
			t.Errorf("saved again: %t, %v", is, err)
		}
		if is, err = r.s.Documents.IsResaved(r.ctx(), r.sync.ID, "a.docx", hash("another text")); err != nil || is {
			t.Errorf("another text counts as saved again: %t, %v", is, err)
		}
	})
}

// A claim that was lost meanwhile changes nothing.
func TestSaveWithoutItsClaim(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		r.put("a.docx")
		r.uploadCores(TrainingCompleted, map[string]string{"a.docx": "A/text"})
		r.put("a.docx")
		docs, err := r.s.Queue.Claim(r.ctx(), r.sync.ID, 10)
		r.must(err)
		r.must(r.s.Queue.Release(r.ctx(), docs, time.Time{}, false))
		_, err = r.s.Queue.Resolve(r.ctx(), r.sync.ID, []HashedDocument{{ClaimedDocument: docs[0], SHA256: hash("A2"), Core: hash("text")}}, Sharing{})
		r.must(err)
		r.want("a.docx=pending")
		r.wantResave("a.docx", "", "")
	})
}

// liveSaves runs every text about saves, for TestHotQueriesReadNoWholeTable.
func (r *fixture) liveSaves() {
	r.put("saved.docx")
	r.uploadCores(TrainingCompleted, map[string]string{"saved.docx": "A/text"})
	r.wantResaved("saved.docx", "A2/text", resaved)
	r.wantResave("saved.docx", "A2/text", "A/text")
	_, err := r.s.Documents.IsResaved(r.ctx(), r.sync.ID, "saved.docx", hash("text"))
	r.must(err)
	docs := r.wantResaved("saved.docx", "A3/another text", changed)
	r.trained(TrainingCompleted, r.accept(r.sealCores(docs), 1)...)
}

// Only the document that has a content is found to have it saved again.
func TestIsResaved(t *testing.T) {
	onBoth(t, func(t *testing.T, newFixture fixtureMaker) {
		r := newFixture(t)
		n := r.neighbour("neighbour")
		r.put("a.md", "b.md")
		r.uploadCores(TrainingCompleted, map[string]string{"a.md": "A/core", "b.md": "B/other core"})
		n.put("a.md")
		n.uploadCores(TrainingCompleted, map[string]string{"a.md": "N/core of the neighbour"})
		for _, tt := range []struct {
			key, core string
			want      bool
		}{{"a.md", "core", true}, {"b.md", "core", false}, {"c.md", "core", false}, {"a.md", "other core", false}, {"a.md", "core of the neighbour", false}} {
			if got, err := r.s.Documents.IsResaved(t.Context(), r.sync.ID, tt.key, hash(tt.core)); err != nil || got != tt.want {
				t.Errorf("%s with %s: %v, %v", tt.key, tt.core, got, err)
			}
		}
		r.wantResaved("a.md", "A2/core", resaved)
		r.wantResave("a.md", "A2/core", "A/core")
		if save, ok, err := r.s.Documents.Resave(t.Context(), r.document("b.md").ID); ok || err != nil {
			t.Errorf("b.md was saved again as %+v, %v", save, err)
		}
	})
}
