package engine

import (
	"context"
	"fmt"
	"strconv"

	"github.com/kbsync/kbsync/state"
)

// Remaining returns an error for each kind of documents that keep a sync from being complete. reason, if not empty, says why
// documents are not uploaded yet.
func Remaining(sync string, documents map[state.DocumentState]int, reason string) []error {
	if reason != "" {
		reason = ": " + reason
	}
	var errs []error
	for _, row := range []struct {
		n     int
		class Class
		text  string
	}{
		{documents[state.Failed], ClassDocumentsFailed, "failed (kbsync status " + sync + " shows why; kbsync retry uploads again)"},
		{documents[state.Stuck], ClassTrainingDeadline, "still in training after --train-timeout"},
		{documents[state.Uncertain], ClassTemporary, "uncertain because the answer to the upload was lost"},
		{documents[state.Pending] + documents[state.Uploading], ClassTemporary, "not uploaded yet" + reason},
		{documents[state.Training], ClassTemporary, "still in training (kbsync wait " + sync + " waits for it)"},
	} {
		if row.n > 0 {
			errs = append(errs, WithClass(row.class, fmt.Errorf("%s %s", count(row.n, "document"), row.text)))
		}
	}
	return errs
}

// Blocked returns an error for the documents of a sync that are not sent because of their looks; nil if there are none. It belongs
// to the class of failed documents: only a person can change them.
func Blocked(ctx context.Context, store *state.Store, sync string, syncID int64) (blocked, err error) {
	n, err := store.Documents.CountBlocked(ctx, syncID)
	if err != nil || n == 0 {
		return nil, err
	}
	return WithClass(ClassDocumentsFailed, fmt.Errorf("%s blocked before the upload (kbsync status %s shows why)", count(n, "document"), sync)), nil
}

// count returns a number with its noun: 1 document, 2 documents.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
