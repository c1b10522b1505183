package ingest

import (
	"errors"
	"fmt"
)

// ErrStopped says that a run ended because Options.Stop was closed.
var ErrStopped = errors.New("stopped before everything was uploaded")

// A FatalError says that the API takes nothing from this sync until a person
// changes something: the token, the account, the knowledge base or the address. No
// document is to blame and none was failed. It wraps the API's *replycx.Error.
type FatalError struct {
	Err error
}

func (e *FatalError) Error() string {
	return fmt.Sprintf("upload: %v (check the token, the knowledge base and the API's address)", e.Err)
}

// Unwrap returns Err.
func (e *FatalError) Unwrap() error { return e.Err }

// An OutageError says that uploads were halted because their outcomes are unknown,
// or because the API does not answer at all. What is pending stays so; a rerun
// tries one document first.
type OutageError struct {
	// Streak is how many batches became uncertain since the last accepted one.
	Streak int
	// Err is what was met last.
	Err error
}

func (e *OutageError) Error() string {
	return fmt.Sprintf("uploads halted after %d without a usable answer: %v (run again when the API is well)", e.Streak, e.Err)
}

// Unwrap returns Err.
func (e *OutageError) Unwrap() error { return e.Err }

// A QuotaError says that one document after the other was refused for one reason,
// which a quota or a rule of the account explains better than the documents do.
// They are pending again.
type QuotaError struct {
	Documents int // refused in a row
	Code      string
	Err       error // the last refusal
}

func (e *QuotaError) Error() string {
	return fmt.Sprintf("%d documents refused in a row, likely a limit of the account and not the documents: %v", e.Documents, e.Err)
}

// Unwrap returns Err.
func (e *QuotaError) Unwrap() error { return e.Err }

// A BudgetError says that a run reached a limit that it was given.
type BudgetError struct {
	Limit string // "max-transfer" or "max-duration"
}

func (e *BudgetError) Error() string {
	return fmt.Sprintf("the limit of --%s is reached; run again to go on", e.Limit)
}
