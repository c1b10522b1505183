package emulator

import (
	"bytes"
	"io"
	"net/http"
	"slices"
)

type eventBody struct {
	Event  string                   `json:"event"`
	Status string                   `json:"status"`
	User   *struct{ By, To string } `json:"user"`
	Team   *struct{ By, To string } `json:"team"`
}

// eventOperation returns the operation of a request to the events path. It leaves the
// body of the request readable.
func eventOperation(r *http.Request) Operation {
	data, err := io.ReadAll(io.LimitReader(r.Body, maxJSON+1))
	r.Body = io.NopCloser(bytes.NewReader(data))
	var b eventBody
	if err == nil && decodeJSON(data, &b) == nil && b.Event == "assignee" {
		return OpAssign
	}
	return OpClose
}

func (e *Emulator) conversationEvent(r *http.Request, _ *Fault) (reply, error) {
	account, refusal, ok := e.conversationAccount(r, true)
	if !ok {
		return refusal, nil
	}
	var body eventBody
	readErr := readJSON(r, &body)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.catchUp(); err != nil {
		return internal(err), nil
	}
	c, ok := e.find(account, r.PathValue("conversation"))
	switch {
	case !ok:
		return fail(http.StatusNotFound, "CONVERSATION_NOT_FOUND", "Conversation is not available."), nil
	case readErr != nil:
		return fail(http.StatusBadRequest, "INVALID_DATA", readErr.Error()), nil
	case body.Event == "status" && body.Status == "CLOSE" && body.User != nil:
		return e.closeConversation(account, c, body.User.By), nil
	case body.Event == "assignee" && body.Team != nil && body.User == nil:
		return e.assign(account, c, body.Team.By, "", body.Team.To), nil
	case body.Event == "assignee" && body.User != nil && body.Team == nil:
		return e.assign(account, c, body.User.By, body.User.To, ""), nil
	}
	return fail(http.StatusBadRequest, "INVALID_DATA", "The event neither closes the conversation nor changes its assignee"), nil
}

// closeConversation closes a conversation, unless it is closed already.
func (e *Emulator) closeConversation(a *Account, c conversation, by string) reply {
	if a.limited(by) {
		return fail(http.StatusBadRequest, "CONVERSATION_NOT_CLOSED", "Conversation is not closed due to user limit validation.")
	}
	if !c.Closed {
		c.Closed = true
		if err := e.change(c); err != nil {
			return internal(err)
		}
		e.publish(a.ID, c.ID, "status", map[string]any{"status": "CLOSE", "by": by})
	}
	return done(nil)
}

func (e *Emulator) assign(a *Account, c conversation, by, to, team string) reply {
	switch {
	case c.Closed:
		return fail(http.StatusBadRequest, "CONVERSATION_CLOSED", "Assignee cannot be changed on closed conversation.")
	case to == "" && !slices.Contains(a.Teams, team):
		return fail(http.StatusBadRequest, "TEAM_NOT_FOUND", "Team does not exist.")
	case to != "" && by == to:
		return fail(http.StatusBadRequest, "ASSIGNEE_CHANGE_EXCEPTION", "By and To user are same. Can not assign conversation to same user.")
	case a.limited(by) || a.limited(to):
		return fail(http.StatusBadRequest, "ASSIGNEE_NOT_CHANGED", "Assignee is not changed due to user limit validation.")
	case to != "" && a.user(to) == nil:
		return fail(http.StatusBadRequest, "INVALID_DATA", "The account has no such user")
	}
	from := c.Assignee
	c.Assignee, c.Team = to, team
	if err := e.change(c); err != nil {
		return internal(err)
	}
	e.publish(a.ID, c.ID, "assignee_change", map[string]any{"by": by, "from": from, "to_user": to, "to_team": team})
	return done(nil)
}

func (e *Emulator) variables(r *http.Request, _ *Fault) (reply, error) {
	account, refusal, ok := e.pathAccount(r)
	if !ok {
		return refusal, nil
	}
	var body struct {
		Variables []struct {
			Name  string `json:"name"`
			Type  string `json:"type"`
			Value string `json:"value"`
		} `json:"variables"`
	}
	if err := readJSON(r, &body); err != nil {
		return fieldErrors(map[string][]string{"variables": {"Not a valid list."}}), nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.catchUp(); err != nil {
		return internal(err), nil
	}
	c, ok := e.find(account, r.PathValue("conversation"))
	if !ok {
		return fail(http.StatusNotFound, "CONVERSATION_NOT_FOUND", "Conversation is not found"), nil
	}
	if len(body.Variables) == 0 {
		return fieldErrors(map[string][]string{"variables": {"Shorter than minimum length 1."}}), nil
	}
	updated := make(map[string]string, len(c.Variables)+len(body.Variables))
	for k, v := range c.Variables {
		updated[k] = v
	}
	for _, v := range body.Variables {
		if v.Name == "" || v.Type != "conversation" && v.Type != "contact" {
			return fieldErrors(map[string][]string{"variables": {"Each needs a name and the type conversation or contact."}}), nil
		}
		updated[v.Type+"/"+v.Name] = v.Value
	}
	c.Variables = updated
	if err := e.change(c); err != nil {
		return internal(err), nil
	}
	e.publish(account.ID, c.ID, "variables", map[string]any{"variables": body.Variables})
	return done(nil), nil
}
