package config

import (
	"maps"
	"slices"
	"strings"
	"unicode"
)

// variables returns the environment as a map, without empty variables.
func variables(environ []string, goos string) map[string]string {
	vars := map[string]string{}
	for _, e := range environ {
		name, text, found := strings.Cut(e, "=")
		if goos == "windows" {
			name = strings.ToUpper(name)
		}
		if found && name != "" && text != "" {
			vars[name] = text
		}
	}
	return vars
}

// checkVariables reports the KBSYNC_ variables that are no setting.
func (b *builder) checkVariables() {
	var known []string
	for _, s := range b.settings {
		if s.Name != "" {
			known = append(known, s.Env())
		}
	}
	for _, flag := range b.in.OtherFlags {
		known = append(known, envName(flag))
	}
	for _, name := range slices.Sorted(maps.Keys(b.vars)) {
		if !strings.HasPrefix(name, "KBSYNC_") || slices.Contains(known, name) || b.serviceVariable(name) {
			continue
		}
		at := place{name: name}
		switch name {
		case "KBSYNC_TOKEN", "KBSYNC_API_TOKEN", "KBSYNC_REPLYCX_TOKEN":
			b.fail(at, "is not a setting; the token's variable is %s", tokenVariable)
		default:
			b.fail(at, "is not a setting; %s", suggest(name, known, "remove it from the environment"))
		}
	}
}

// readToken takes the token from its variable.
func (b *builder) readToken() {
	token := strings.TrimSpace(b.vars[tokenVariable])
	if strings.ContainsFunc(token, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		b.fail(place{name: tokenVariable}, "contains white space; set only the token, without a word such as Bearer before it")
		return
	}
	b.config.API.Token = NewSecret(token)
}

// serviceVariable reports whether Kubernetes made the variable. A Service named
// kbsync-x gives every pod KBSYNC_X_SERVICE_HOST, KBSYNC_X_PORT and more, which
// are not meant as settings.
func (b *builder) serviceVariable(name string) bool {
	for _, mark := range []string{"_SERVICE_", "_PORT"} {
		service, _, found := strings.Cut(name, mark)
		if _, is := b.vars[service+"_SERVICE_HOST"]; found && is {
			return true
		}
	}
	return false
}

// splitVariable returns the values in a variable. Commas and line ends separate
// patterns, except for commas in brackets, in braces or after a backslash. Line
// ends separate paths.
func splitVariable(s *Setting, text string, at place) []value {
	if !s.Repeatable() {
		return []value{{text, at}}
	}
	depth, escaped := 0, false
	fields := strings.FieldsFunc(text, func(r rune) bool {
		was := escaped
		escaped = r == '\\' && !was
		switch {
		case r == '\n' || r == '\r':
			depth = 0
			return true
		case was || s.Kind == KindPaths:
		case r == '{' || r == '[':
			depth++
		case r == '}' || r == ']':
			depth = max(depth-1, 0)
		case r == ',':
			return depth == 0
		}
		return false
	})
	vals := []value{}
	for _, f := range fields {
		if f = strings.TrimSpace(f); f != "" {
			vals = append(vals, value{f, at})
		}
	}
	return vals
}

// tokenVariable holds the API's token. Its name belongs to the client, not to
// kbsync, so that a token set for other programs works here too.
const tokenVariable = "REPLYCX_TOKEN"
