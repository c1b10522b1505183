package engine

import (
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

// count returns a number with its noun: 1 document, 2 documents.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
