package replycx

import (
	"strings"
	"testing"
	"time"
)

func TestClassOfEveryKindOfRefusal(t *testing.T) {
	for name, c := range map[string]struct {
		err  Error
		want Class
	}{
		"gateway's 502":                 {Error{StatusCode: 502}, ClassUnclear},
		"500 with a body of the API":    {Error{StatusCode: 500, FromAPI: true}, ClassUnclear},
		"bare 503":                      {Error{StatusCode: 503}, ClassUnclear},
		"ok false under 200":            {Error{StatusCode: 200, FromAPI: true}, ClassUnclear},
		"401 code under 500":            {Error{StatusCode: 500, Code: string(ErrUnauthorized)}, ClassUnclear},
		"503 with Retry-After":          {Error{StatusCode: 503, RetryAfter: time.Second}, ClassBusy},
		"503 of the API":                {Error{StatusCode: 503, FromAPI: true}, ClassBusy},
		"408":                           {Error{StatusCode: 408}, ClassBusy},
		"425":                           {Error{StatusCode: 425}, ClassBusy},
		"429":                           {Error{StatusCode: 429}, ClassBusy},
		"400":                           {Error{StatusCode: 400, Code: string(ErrBadRequest)}, ClassRejected},
		"413":                           {Error{StatusCode: 413}, ClassRejected},
		"422":                           {Error{StatusCode: 422}, ClassRejected},
		"BAD_REQUEST under 200":         {Error{StatusCode: 200, Code: string(ErrBadRequest)}, ClassRejected},
		"414":                           {Error{StatusCode: 414}, ClassTooLong},
		"431":                           {Error{StatusCode: 431}, ClassTooLong},
		"bare 404":                      {Error{StatusCode: 404}, ClassNotFound},
		"404 of a conversation":         {Error{StatusCode: 404, Code: string(ErrConversationNotFound), FromAPI: true}, ClassNotFound},
		"401 without a code":            {Error{StatusCode: 401}, ClassDenied},
		"403":                           {Error{StatusCode: 403}, ClassDenied},
		"redirect":                      {Error{StatusCode: 307}, ClassDenied},
		"405":                           {Error{StatusCode: 405}, ClassDenied},
		"missing account":               {Error{StatusCode: 404, Code: string(ErrAccountNotFound)}, ClassDenied},
		"missing knowledge base":        {Error{StatusCode: 404, Code: string(ErrKnowledgeBaseNotFound)}, ClassDenied},
		"feature not enabled under 200": {Error{StatusCode: 200, Code: string(ErrFeatureNotEnabled)}, ClassDenied},
		"another account's knowledge base": {Error{StatusCode: 400, Code: string(ErrBadRequest),
			Message: "Knowledge base 7 does not belong to the account"}, ClassDenied},
	} {
		if got := c.err.Class(); got != c.want {
			t.Errorf("%s: class %v, want %v", name, got, c.want)
		}
	}
}

func TestClassWords(t *testing.T) {
	seen := make(map[string]bool)
	for c := ClassUnclear; c <= ClassDenied; c++ {
		if word := c.String(); word == "" || strings.HasPrefix(word, "Class") || seen[word] {
			t.Errorf("class %d is %q", uint8(c), word)
		}
		seen[c.String()] = true
	}
	if got := Class(99).String(); got != "Class(99)" {
		t.Errorf("an unknown class is %q", got)
	}
}
