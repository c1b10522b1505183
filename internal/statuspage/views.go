package statuspage

import (
	"context"
	"encoding/hex"
	"strings"
	"time"

	"github.com/kbsync/kbsync/state"
)

// A DocumentView is one document with its history, as /document.json and kbsync status NAME KEY --json have it.
type DocumentView struct {
	Sync        string        `json:"sync"`
	Key         string        `json:"key"`
	State       string        `json:"state"`
	Reason      string        `json:"reason,omitempty"`
	Size        int64         `json:"size"`
	SHA256      string        `json:"sha256,omitempty"`
	ChangedAt   *time.Time    `json:"changed_at,omitempty"`
	Attempts    int           `json:"attempts"`
	NextAttempt *time.Time    `json:"next_attempt,omitempty"`
	Versions    []VersionView `json:"versions"`
	Resaved     *ResavedView  `json:"resaved,omitempty"`
	Sources     []SourceView  `json:"sources"`
	History     []EventView   `json:"history"`
}

// A VersionView is a content that the document has or had.
type VersionView struct {
	SHA256      string             `json:"sha256,omitempty"`
	Size        int64              `json:"size"`
	Until       *time.Time         `json:"until"` // null for the present one
	State       string             `json:"state"`
	Reason      string             `json:"reason,omitempty"`
	UploadedFor state.DocumentName `json:"uploaded_for"`
}

// A ResavedView says that the document was saved again with only its metadata changed, and keeps the source of the content that it had.
type ResavedView struct {
	SHA256  string     `json:"sha256"` // of the file
	Since   time.Time  `json:"since"`
	Content string     `json:"content"` // the SHA-256 of the content that the source has
	SentAt  *time.Time `json:"sent_at,omitempty"`
}

// An EventView is a line of the history of a document.
type EventView struct {
	At     time.Time `json:"at"`
	What   string    `json:"what"`
	Batch  int64     `json:"batch,omitempty"`
	Source int64     `json:"source,omitempty"`
	SHA256 string    `json:"sha256,omitempty"`
}

// A SourceView is a row of the inventory, as /sources.json and kbsync sources --json have it.
type SourceView struct {
	// ID is negative if the id is unknown: kbsync state adopt took the source as uploaded.
	ID            int64      `json:"id"`
	Sync          string     `json:"sync"`
	Key           string     `json:"key"`
	Origin        string     `json:"origin"`
	Account       string     `json:"account"`
	KnowledgeBase int64      `json:"knowledge_base"`
	Name          string     `json:"name"`
	Type          string     `json:"type"`
	Status        string     `json:"status"`
	Errors        string     `json:"errors,omitempty"`
	Standing      string     `json:"standing"`
	SHA256        string     `json:"sha256"`
	Batch         int64      `json:"batch"`
	CreatedAt     time.Time  `json:"created_at"`
	SettledAt     *time.Time `json:"settled_at"`
	AckedAt       *time.Time `json:"acked_at"`
	// Documents have the content now: after a rename, under another key than Key.
	Documents     []state.DocumentName `json:"documents"`
	MoreDocuments bool                 `json:"more_documents,omitempty"`
	LeftAt        *time.Time           `json:"left_at"`
	ReplacedBy    []int64              `json:"replaced_by"`
}

// ViewSource returns the view of a row of the inventory.
func ViewSource(s state.WorksheetRow) SourceView {
	return SourceView{
		ID: s.ID, Sync: s.Sync, Key: s.Key,
		Origin: s.Destination.Origin, Account: s.Destination.Account, KnowledgeBase: s.Destination.KnowledgeBase,
		Name: s.Name, Type: s.Type, Status: s.Status, Errors: s.Errors, Standing: string(s.Standing), SHA256: hexOf(s.SHA256),
		Batch: s.Batch, CreatedAt: s.CreatedAt, SettledAt: orNil(s.OutcomeAt), AckedAt: orNil(s.AckedAt),
		Documents: append([]state.DocumentName{}, s.Documents...), MoreDocuments: s.MoreDocuments,
		LeftAt: orNil(s.LeftAt), ReplacedBy: append([]int64{}, s.ReplacedBy...),
	}
}

// ReadDocument reads the history of a document of a sync.
func ReadDocument(ctx context.Context, store *state.Store, s state.Sync, d state.Document) (DocumentView, error) {
	v := DocumentView{
		Sync: s.Name, Key: d.Key, State: string(d.State), Reason: Reason(d), Size: d.Fingerprint.Size, SHA256: hexOf(d.SHA256),
		ChangedAt: orNil(d.ChangedAt), Attempts: d.Attempts, NextAttempt: orNil(d.NextAttempt),
		Versions: []VersionView{}, Sources: []SourceView{}, History: []EventView{},
	}
	resave, ok, err := store.Documents.Resave(ctx, d.ID)
	if err != nil {
		return v, err
	}
	if ok {
		v.Resaved = &ResavedView{hexOf(resave.SHA256), resave.Since, hexOf(resave.Content), orNil(resave.SentAt)}
	}
	versions, err := store.Documents.Versions(ctx, d.ID)
	if err != nil {
		return v, err
	}
	for _, x := range versions {
		v.Versions = append(v.Versions, VersionView{hexOf(x.SHA256), x.Size, orNil(x.Until), string(x.State), x.Reason, x.UploadedFor})
	}
	sources, err := store.Inventory.OfDocument(ctx, d.ID)
	if err != nil {
		return v, err
	}
	for _, row := range sources {
		v.Sources = append(v.Sources, ViewSource(row))
	}
	events, err := store.Documents.History(ctx, d.ID)
	if err != nil {
		return v, err
	}
	for _, e := range events {
		v.History = append(v.History, EventView{e.At, e.What, e.Batch, e.Source, hexOf(e.SHA256)})
	}
	return v, nil
}

// Reason returns why a document is in its state, for a person.
func Reason(d state.Document) string {
	if d.Held && d.State == state.Uncertain {
		return strings.TrimSpace(d.Reason + " (held: kbsync retry sends it again)")
	}
	if d.Reason == "" && d.State == state.Stuck {
		return "its training did not end in time; kbsync still polls it"
	}
	return d.Reason
}

// hexOf returns the hash in hexadecimal; empty if it is unknown.
func hexOf(sum state.SHA256) string {
	if sum == (state.SHA256{}) {
		return ""
	}
	return hex.EncodeToString(sum[:])
}
