package ingest

import (
	"slices"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

// A document is a claimed document that a run works on.
type document struct {
	state.ClaimedDocument
	sha      state.SHA256 // valid if hashed is set
	hashed   bool
	verified bool   // a status answer has just named all of its left-behind sources
	inFlight bool   // counted in the in-flight set
	rounds   int    // how often Seal found its content known after Resolve had not
	content  []byte // to be sent, kept in memory since its hashing; nil if it was not
	look
}

// size returns the bytes of the document that are sent.
func (d *document) size() int64 {
	if d.charset != "" {
		return d.decoded
	}
	return d.Fingerprint.Size
}

func wrap(claimed []state.ClaimedDocument) []*document {
	block := make([]document, len(claimed))
	docs := make([]*document, len(claimed))
	for i := range claimed {
		block[i].ClaimedDocument = claimed[i]
		docs[i] = &block[i]
	}
	return docs
}

func unwrap(docs []*document) []state.ClaimedDocument {
	out := make([]state.ClaimedDocument, len(docs))
	for i, d := range docs {
		out[i] = d.ClaimedDocument
	}
	return out
}

// attempts returns the highest number of failed attempts of the documents.
func attempts(docs []*document) int {
	most := 0
	for _, d := range docs {
		most = max(most, d.Attempts)
	}
	return most
}

// A batch is the documents of one upload request.
type batch struct {
	docs     []*document
	bytes    int64 // of contents
	resendOf int64 // the uncertain batch that is sent again; 0 for none
	probe    bool  // a breaker probe
	trial    bool  // tries whether a limit of the size is still there
}

// with returns a batch of the same kind, but no trial, that holds docs alone.
func (b *batch) with(docs []*document) *batch {
	out := &batch{docs: docs, resendOf: b.resendOf, probe: b.probe}
	for _, d := range docs {
		out.bytes += d.Fingerprint.Size
	}
	return out
}

// without returns a batch of the same kind without the document at position i.
func (b *batch) without(i int) *batch {
	return b.with(slices.Delete(slices.Clone(b.docs), i, i+1))
}

// halves splits a batch of two or more documents.
func (b *batch) halves() []*batch {
	middle := len(b.docs) / 2
	return []*batch{b.with(b.docs[:middle:middle]), b.with(b.docs[middle:])}
}

// cut returns how many documents from the first make a batch, and their bytes. A document larger than a batch makes a
// batch alone.
func cut(docs []*document, documents int, bytes int64) (n int, total int64) {
	for n < len(docs) && n < documents {
		size := docs[n].Fingerprint.Size
		if n > 0 && total+size > bytes {
			break
		}
		total += size
		n++
	}
	return n, total
}

// A BatchCount counts the batches that documents make, as a run without refusals cuts them. Documents and Bytes are the limits of
// Options.
type BatchCount struct {
	Documents int
	Bytes     int64

	Batches int // the result
	inLast  int
	bytes   int64
}

// Add adds the next document.
func (c *BatchCount) Add(size int64) {
	limit := min(positive(c.Documents, defaultDocuments), replycx.MaxParts)
	if c.inLast == 0 || c.inLast == limit || c.bytes+size > positive(c.Bytes, defaultBytes) {
		c.Batches++
		c.inLast, c.bytes = 0, 0
	}
	c.inLast++
	c.bytes += size
}
