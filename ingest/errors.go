package ingest

import (
	"errors"
	"fmt"
)

// ErrStopped is the error of a run that ended because Options.Stop was closed.
var ErrStopped = errors.New("stopped before everything was uploaded")

// A FatalError means that the API accepts no upload of this sync until a person changes the token, the account, the
// knowledge base or the address. No document is to blame, and none was marked failed. It wraps the API's *replycx.Error.
type FatalError struct {
	Err error
}

func (e *FatalError) Error() string {
	return fmt.Sprintf("upload: %v (check the token, the knowledge base and the API's address)", e.Err)
}

// Unwrap returns Err.
func (e *FatalError) Unwrap() error { return e.Err }

// An OutageError means that uploads were halted because their outcomes are unknown, or because the API does not answer.
// Pending documents stay pending; a rerun sends one document first.
type OutageError struct {
	// Streak is how many batches became uncertain since the last accepted one.
	Streak int
	// Err is the last error.
	Err error
}

func (e *OutageError) Error() string {
	return fmt.Sprintf("uploads halted after %d without a usable answer: %v (run again when the API answers)", e.Streak, e.Err)
}

// Unwrap returns Err.
func (e *OutageError) Unwrap() error { return e.Err }

// A QuotaError means that the API refused many documents in a row for one reason, so a quota or a rule of the account is
// likelier than a fault of the documents. The documents are pending again.
type QuotaError struct {
	Documents int // refused in a row
	Code      string
	Err       error // the last refusal
}

func (e *QuotaError) Error() string {
	return fmt.Sprintf("%d documents refused in a row, likely a limit of the account and not the documents: %v",
		e.Documents, e.Err)
}

// Unwrap returns Err.
func (e *QuotaError) Unwrap() error { return e.Err }

// A BudgetError means that a run reached one of its limits.
type BudgetError struct {
	Limit string // "max-transfer" or "max-duration"
}

func (e *BudgetError) Error() string {
	return fmt.Sprintf("the limit of --%s is reached; run again to continue", e.Limit)
}

// errPatience ends a run whose destination accepts no upload within the run's patience. Run does not return it.
var errPatience = errors.New("the API asked to wait for longer than the run's patience")
