package ingest

import (
	"cmp"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/kbsync/kbsync/replycx"
)

// An outcome is what an upload that was not accepted means.
type outcome uint8

const (
	// outcomeUncertain: the request was complete and its answer is not known.
	outcomeUncertain outcome = iota
	// outcomeBusy: nothing was left behind, and the same may go through later.
	outcomeBusy
	// outcomeRefused: nothing was left behind, because of what the request holds.
	outcomeRefused
	// outcomeFatal: nothing was left behind, and no request of the sync will fare better.
	outcomeFatal
)

// A judgement is an outcome and what was said.
type judgement struct {
	outcome outcome
	status  int    // 0 where there was no answer
	code    string // of the API, or empty
	message string
	// pause says that the server wants fewer requests: for retryAfter if it said so.
	pause      bool
	retryAfter time.Duration
}

// judge says what a failed upload means. complete says that the server may have had
// the whole request: it was sealed and its end may have gone out.
func judge(err error, complete bool) judgement {
	incomplete := outcomeBusy
	if complete {
		incomplete = outcomeUncertain
	}
	e, ok := errors.AsType[*replycx.Error](err)
	if !ok {
		return judgement{outcome: incomplete, message: err.Error()}
	}
	j := judgement{
		status:     e.StatusCode,
		code:       e.Code,
		message:    cmp.Or(e.Message, e.Error()),
		retryAfter: e.RetryAfter,
	}
	switch status := e.StatusCode; {
	case status < 500 && fatalCode(e):
		j.outcome = outcomeFatal
	case status == http.StatusTooManyRequests,
		status == http.StatusServiceUnavailable && (e.RetryAfter > 0 || e.FromAPI):
		j.outcome, j.pause = outcomeBusy, true
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly:
		j.outcome, j.pause = outcomeBusy, e.RetryAfter > 0
	case status == http.StatusBadRequest, status == http.StatusRequestEntityTooLarge, status == http.StatusUnprocessableEntity,
		status < 300 && errors.Is(e, replycx.ErrBadRequest):
		j.outcome = outcomeRefused
	case status >= 300 && status < 500:
		j.outcome = outcomeFatal
	default:
		// Another 5xx, or an "ok": false under a status of success that says nothing we
		// know: what became of the documents cannot be told.
		j.outcome = incomplete
	}
	return j
}

// fatalCode says whether an answer is about the account, the token or the knowledge
// base, under whatever status.
func fatalCode(e *replycx.Error) bool {
	if e.StatusCode == http.StatusUnauthorized || errors.Is(e, replycx.ErrKnowledgeBaseNotOwned) {
		return true
	}
	switch replycx.Code(e.Code) {
	case replycx.ErrTokenInvalid, replycx.ErrUnauthorized, replycx.ErrFeatureNotEnabled, replycx.ErrAccountNotFound, replycx.ErrKnowledgeBaseNotFound:
		return true
	}
	return false
}

// reasonCode is what refusals in a row are compared by.
func (j judgement) reasonCode() string {
	return cmp.Or(j.code, strconv.Itoa(j.status))
}

// The bounds of the pause before another attempt.
const (
	minRetry = time.Second
	maxRetry = 5 * time.Minute
)

// retryDelay is the pause after the attempt that follows so many failed ones: with
// random in [0, 1), evenly spread up to a bound that doubles from one to the next.
func retryDelay(attempts int, random float64) time.Duration {
	return time.Duration(random * float64(retryBound(attempts, maxRetry)))
}

// retryBound is minRetry doubled so many times, at most most.
func retryBound(attempts int, most time.Duration) time.Duration {
	b := backoff.ExponentialBackOff{
		InitialInterval: minRetry,
		Multiplier:      2,
		MaxInterval:     most,
		Clock:           backoff.SystemClock,
	}
	b.Reset()
	bound := min(minRetry, most)
	for range min(max(attempts, 0), 32) + 1 {
		bound = b.NextBackOff()
	}
	return bound
}
