package emulator

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Token returns a token of the account, which need not exist. It does not expire.
func (e *Emulator) Token(account int64) string { return e.sign(claims{AccountID: account}) }

// ExpiringToken returns a token of the account that is valid for a time of the
// emulator's clock, in whole seconds. Afterwards the emulator answers as to any invalid
// token: JWT_SIGNATURE_EXCEPTION or UNAUTHORIZED.
func (e *Emulator) ExpiringToken(account int64, life time.Duration) string {
	c := claims{AccountID: account}
	c.ExpiresAt = jwt.NewNumericDate(e.now().Add(life))
	return e.sign(c)
}

func (e *Emulator) sign(c claims) string {
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, c).SignedString(e.secret)
	if err != nil {
		panic(err) // a byte slice can always sign
	}
	return token
}

type claims struct {
	AccountID int64 `json:"account_id"`
	jwt.RegisteredClaims
}

// account returns the account in a request's token, and reports whether the token is
// valid.
func (e *Emulator) account(r *http.Request) (int64, bool) {
	text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return 0, false
	}
	var c claims
	_, err := jwt.ParseWithClaims(text, &c, func(*jwt.Token) (any, error) { return e.secret, nil },
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithTimeFunc(e.now))
	return c.AccountID, err == nil
}

// knowledgeAccount checks the token and the account for the two knowledge base
// operations.
func (e *Emulator) knowledgeAccount(r *http.Request) (*Account, reply, bool) {
	id, ok := e.account(r)
	if !ok {
		return nil, failWithoutCode(http.StatusUnauthorized, "JWT_SIGNATURE_EXCEPTION", "Invalid JWT token"), false
	}
	account := e.fixture.account(id)
	switch {
	case account == nil:
		return nil, fail(http.StatusNotFound, "ACCOUNT_DETAILS_NOT_FOUND", "Account Details are Not Found!"), false
	case account.KnowledgeBaseDisabled:
		return nil, fail(http.StatusUnauthorized, "UNAUTHORIZED_FEATURE", "Please reach out to support to use this feature"), false
	}
	return account, reply{}, true
}

// conversationAccount checks the token for the conversation operations. withCode is
// set if the API's document shows this operation's error with a code.
func (e *Emulator) conversationAccount(r *http.Request, withCode bool) (*Account, reply, bool) {
	if id, ok := e.account(r); ok {
		if account := e.fixture.account(id); account != nil {
			return account, reply{}, true
		}
	}
	if withCode {
		return nil, fail(http.StatusUnauthorized, "JWT_SIGNATURE_EXCEPTION", "Invalid JWT token"), false
	}
	return nil, failWithoutCode(http.StatusUnauthorized, "JWT_SIGNATURE_EXCEPTION", "Invalid JWT token"), false
}

// pathAccount checks the token for the operations below /v1/accounts, whose path must
// contain the token's account.
func (e *Emulator) pathAccount(r *http.Request) (*Account, reply, bool) {
	id, ok := e.account(r)
	account := e.fixture.account(id)
	if !ok || account == nil || r.PathValue("account") != strconv.FormatInt(id, 10) {
		return nil, failWithoutCode(http.StatusUnauthorized, "UNAUTHORIZED", "Invalid token. Provide the valid account token."), false
	}
	return account, reply{}, true
}

func (e *Emulator) bots(r *http.Request, _ *Fault) (reply, error) {
	account, refusal, ok := e.pathAccount(r)
	if !ok {
		return refusal, nil
	}
	bots := account.Bots
	if bots == nil {
		bots = []AccountBot{}
	}
	return encode(http.StatusOK, map[string]any{"ok": true, "bots": bots}), nil
}
