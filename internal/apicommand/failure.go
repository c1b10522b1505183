package apicommand

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/replycx"
)

func usageError(text string) error { return engine.WithClass(engine.ClassUsage, errors.New(text)) }

// A PlainError describes the whole outcome of an operation. The program prints its text even if an interrupt caused it.
type PlainError struct{ err error }

func (e *PlainError) Error() string { return e.err.Error() }

// Unwrap returns the error with the same text.
func (e *PlainError) Unwrap() error { return e.err }

// apiFailure returns the error of an operation with its class and, where possible, the remedy. lost names the object
// that may exist although no answer came; it is empty if repeating the operation is harmless.
func apiFailure(err error, lost string) error {
	if _, ok := errors.AsType[*engine.ClassError](err); ok || err == nil {
		return err
	}
	if errors.Is(err, replycx.ErrNoAccount) {
		return usageError("the token does not name its account; set --account-id ID, or account_id below api in the config")
	}
	if refused, ok := errors.AsType[*replycx.Error](err); ok {
		if failure := refusalFailure(err, refused); failure != nil {
			return failure
		}
	}
	if neverSent(err) {
		return err
	}
	interrupted := errors.Is(err, context.Canceled)
	if interrupted {
		err = errors.New("interrupted before the API answered")
	}
	if lost == "" {
		if interrupted {
			return engine.WithClass(engine.ClassInterrupted, &PlainError{err})
		}
		return err
	}
	return engine.WithClass(engine.ClassOther, &PlainError{fmt.Errorf("%w; %s may exist all the same: check in ReplyCX before you repeat this", err, lost)})
}

// refusalFailure returns a refusal with its class, or nil if the API may have done the operation.
func refusalFailure(err error, refused *replycx.Error) error {
	switch refused.Class() {
	case replycx.ClassDenied:
		switch {
		case errors.Is(err, replycx.ErrTokenInvalid):
			return engine.WithClass(engine.ClassFatal, fmt.Errorf("%w (check the token and --api-url)", err))
		case errors.Is(err, replycx.ErrUnauthorized):
			return engine.WithClass(engine.ClassFatal, fmt.Errorf("%w (check the token, and that --account-id is its account)", err))
		case refused.StatusCode == http.StatusPaymentRequired, refused.StatusCode > http.StatusNotFound:
			return engine.WithClass(engine.ClassOther, err) // such as 409: it concerns this operation, not the token or the account
		}
		return engine.WithClass(engine.ClassFatal, err)
	case replycx.ClassBusy:
		return engine.WithClass(engine.ClassTemporary, fmt.Errorf("%w; nothing was done, try again later", err))
	case replycx.ClassUnclear:
		if refused.StatusCode >= 500 {
			return nil
		}
	}
	return engine.WithClass(engine.ClassOther, err)
}

// neverSent reports whether the request failed before the API had all of it.
func neverSent(err error) bool {
	if _, ok := errors.AsType[*replycx.UnsentError](err); ok || errors.Is(err, replycx.ErrNoToken) {
		return true
	}
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "dial"
}
