package state

import (
	"slices"
	"strconv"
	"strings"
)

// rowsAtOnce is the number of rows that one statement writes. A statement with more rows is prepared more slowly and hardly
// faster a row.
const rowsAtOnce = 20

// valueRows returns the rows of a VALUES list, with parameters from number first on: ($3, $4), ($5, $6).
func valueRows(first, rows, columns int) string {
	var b strings.Builder
	for row := range rows {
		for column := range columns {
			switch {
			case column > 0:
				b.WriteString(", ")
			case row > 0:
				b.WriteString("), (")
			default:
				b.WriteByte('(')
			}
			b.WriteByte('$')
			b.WriteString(strconv.Itoa(first + row*columns + column))
		}
	}
	b.WriteByte(')')
	return b.String()
}

// eachChunk calls fn with the items in chunks of rowsAtOnce.
func eachChunk[T any](items []T, fn func([]T) error) error {
	for chunk := range slices.Chunk(items, rowsAtOnce) {
		if err := fn(chunk); err != nil {
			return err
		}
	}
	return nil
}
