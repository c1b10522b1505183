package state

import (
	"database/sql/driver"
	"fmt"
	"regexp"
	"strings"
	"sync"
)

// postgresTexts are the texts of queries for PostgreSQL, and the values of their parameters.
//
// A statement that is not prepared leaves the types of its parameters to the server, which guesses them from their
// neighbours: a parameter beside a small number would be a 32-bit integer, too small for a time. So the text gives each
// parameter the type of its value: $1 becomes $1::bigint.
type postgresTexts struct {
	texts texts
	typed *sync.Map // typedText -> text
}

// A typedText is a query with the types of its values, a letter each.
type typedText struct{ query, types string }

func newPostgresTexts() postgresTexts {
	return postgresTexts{texts: newTexts("{skip.locked}", "FOR UPDATE SKIP LOCKED", "{no.index}", "",
		"{share.lock}", "FOR SHARE OF s", "{db.now}", "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"), typed: &sync.Map{}}
}

var parameter = regexp.MustCompile(`\$[0-9]+`)

func (x postgresTexts) of(query string, args []any) (text string, values []any, err error) {
	values = make([]any, len(args))
	types := make([]byte, len(args))
	for i, arg := range args {
		if values[i], types[i], err = postgresValue(arg); err != nil {
			return "", nil, fmt.Errorf("value %d: %w", i+1, err)
		}
	}
	key := typedText{query, string(types)}
	if text, ok := x.typed.Load(key); ok {
		return text.(string), values, nil
	}
	text = parameter.ReplaceAllStringFunc(x.texts.of(query), func(p string) string {
		var n int
		if _, err := fmt.Sscanf(p, "$%d", &n); err != nil || n < 1 || n > len(types) {
			return p // the server reports it
		}
		switch types[n-1] {
		case 'i':
			return p + "::bigint"
		case 'b':
			return p + "::bytea"
		case 't':
			return p + "::text"
		}
		return p
	})
	x.typed.Store(key, text)
	return text, values, nil
}

// postgresValue returns the value of an argument, and a letter for its type. The tables hold truths as 0 and 1, as in
// SQLite. PostgreSQL takes no text with a zero byte or with bytes that are not UTF-8, and an answer that has one must be
// recorded all the same: U+FFFD replaces them.
func postgresValue(arg any) (value any, kind byte, err error) {
	if value, err = driver.DefaultParameterConverter.ConvertValue(arg); err != nil {
		return nil, 0, err
	}
	switch v := value.(type) {
	case nil:
		return nil, 'n', nil
	case bool:
		if v {
			return int64(1), 'i', nil
		}
		return int64(0), 'i', nil
	case int64:
		return v, 'i', nil
	case []byte:
		return v, 'b', nil
	case string:
		return strings.ReplaceAll(strings.ToValidUTF8(v, "\uFFFD"), "\x00", "\uFFFD"), 't', nil
	}
	return nil, 0, fmt.Errorf("a %T is no value of a column", value)
}
