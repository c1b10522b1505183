package console

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"iter"
	"time"
)

// A Page describes the rows of an HTML page.
type Page struct {
	Title, Note string
	Written     time.Time
	// Command is the command line that takes the ticked rows; empty for none.
	Command string
}

//go:embed page.html
var pageText string

// pageParts are the parts of the page: it is written row by row, so that its size does not matter.
func pageParts() (*template.Template, error) { return template.New("page").Parse(pageText) }

// PrintPage prints a stream of rows as one HTML file that needs no other file. It has the brief columns,
// and keeps one row in memory. A row for which id
// returns a text has a check box, and the page adds the ids of ticked rows to the command. All text is escaped.
func PrintPage[T any](c *Console, p Page, columns []Column[T], rows iter.Seq2[T, error], id func(T) string) error {
	columns = brief(columns)
	parts, err := pageParts()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	write := func(part string, data any) error {
		b.Reset()
		if err := parts.ExecuteTemplate(&b, part, data); err != nil {
			return fmt.Errorf("write page: %w", err)
		}
		_, err := c.Stdout.Write(b.Bytes())
		return err
	}
	head := struct {
		Page
		Columns []string
	}{p, names(columns)}
	if err := write("head", head); err != nil {
		return err
	}
	n := 0
	for row, err := range rows {
		if err != nil {
			return err
		}
		cells := make([]string, len(columns))
		for i, column := range columns {
			cells[i] = Printable(column.Text(row))
		}
		if err := write("row", struct {
			ID      string
			Columns []string
			Cells   []string
		}{id(row), head.Columns, cells}); err != nil {
			return err
		}
		n++
	}
	return write("end", struct {
		Page
		Rows int
	}{p, n})
}
