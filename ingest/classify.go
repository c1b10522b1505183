package ingest

import (
	"cmp"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/kbsync/kbsync/replycx"
)

// An outcomeKind is the consequence of an upload that was not accepted.
type outcomeKind uint8

const (
	// outcomeUncertain: the request was complete and its answer is unknown.
	outcomeUncertain outcomeKind = iota
	// outcomeBusy: the API created no source, and the same request may succeed later.
	outcomeBusy
	// outcomeRefused: the API created no source, because of the request's contents.
	outcomeRefused
	// outcomeFatal: the API created no source, and every request of the sync would fail the same way.
	outcomeFatal
)

// An outcome is the kind of a failed upload, and the API's words.
type outcome struct {
	kind    outcomeKind
	status  int    // 0 without an answer
	code    string // of the API, or empty
	message string
	// pause is true if the server asks for fewer requests. retryAfter is the time that it asked for, or 0.
	pause      bool
	retryAfter time.Duration
}

// classify returns the outcome of a failed upload. complete is true if the server may have received the whole request: the
// request was sealed and its end may have been sent.
func classify(err error, complete bool) outcome {
	incomplete := outcomeBusy
	if complete {
		incomplete = outcomeUncertain
	}
	e, ok := errors.AsType[*replycx.Error](err)
	if !ok {
		return outcome{kind: incomplete, message: err.Error()}
	}
	o := outcome{
		status:     e.StatusCode,
		code:       e.Code,
		message:    cmp.Or(e.Message, e.Error()),
		retryAfter: e.RetryAfter,
	}
	switch e.Class() {
	case replycx.ClassBusy:
		o.kind = outcomeBusy
		o.pause = e.RetryAfter > 0 || e.StatusCode == http.StatusTooManyRequests || e.StatusCode == http.StatusServiceUnavailable
	case replycx.ClassRejected:
		o.kind = outcomeRefused
	case replycx.ClassTooLong, replycx.ClassNotFound, replycx.ClassDenied:
		o.kind = outcomeFatal
	default:
		o.kind = incomplete
	}
	return o
}

// reason identifies the cause of a refusal: refusals in a row count together if they have the same one.
func (o outcome) reason() string {
	return cmp.Or(o.code, strconv.Itoa(o.status))
}
