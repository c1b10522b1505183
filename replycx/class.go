package replycx

import (
	"errors"
	"fmt"
	"net/http"
)

// A Class is the meaning of a refusal for the caller's next request.
type Class uint8

// The classes of an [Error].
const (
	// ClassUnclear: the answer leaves open whether the server acted on the request. A 5xx of a gateway, and an
	// "ok": false under a 2xx without a documented code.
	ClassUnclear Class = iota
	// ClassBusy: the server did not act on the request; the same request may succeed later. 408, 425, 429, and a 503
	// with Retry-After or with the API's own body.
	ClassBusy
	// ClassRejected: the server refused the content of the request. 400, 413 and 422.
	ClassRejected
	// ClassTooLong: the URL or the header is too long. 414 and 431.
	ClassTooLong
	// ClassNotFound: the object in the request, other than the account or the knowledge base, does not exist. 404.
	ClassNotFound
	// ClassDenied: no request with this token, account, knowledge base and address can succeed until a person changes
	// one of them. 401, the codes with that meaning under any status below 500, and every other 3xx and 4xx.
	ClassDenied
)

// String returns the class in a word, such as "busy".
func (c Class) String() string {
	switch c {
	case ClassUnclear:
		return "unclear"
	case ClassBusy:
		return "busy"
	case ClassRejected:
		return "rejected"
	case ClassTooLong:
		return "too long"
	case ClassNotFound:
		return "not found"
	case ClassDenied:
		return "denied"
	}
	return fmt.Sprintf("Class(%d)", uint8(c))
}

// Class classifies the error by its status and code.
func (e *Error) Class() Class {
	switch status := e.StatusCode; {
	case status < 500 && e.denies():
		return ClassDenied
	case status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, status == http.StatusTooEarly,
		status == http.StatusServiceUnavailable && (e.RetryAfter > 0 || e.FromAPI):
		return ClassBusy
	case status == http.StatusBadRequest, status == http.StatusRequestEntityTooLarge, status == http.StatusUnprocessableEntity,
		status < 300 && errors.Is(e, ErrBadRequest):
		return ClassRejected
	case status == http.StatusRequestURITooLong, status == http.StatusRequestHeaderFieldsTooLarge:
		return ClassTooLong
	case status == http.StatusNotFound:
		return ClassNotFound
	case status >= 300 && status < 500:
		return ClassDenied
	}
	return ClassUnclear
}

// denies reports whether the answer refuses the token, the account or the knowledge base, under any status.
func (e *Error) denies() bool {
	if e.StatusCode == http.StatusUnauthorized || errors.Is(e, ErrKnowledgeBaseNotOwned) {
		return true
	}
	switch Code(e.Code) {
	case ErrTokenInvalid, ErrUnauthorized, ErrFeatureNotEnabled, ErrAccountNotFound, ErrKnowledgeBaseNotFound:
		return true
	}
	return false
}
