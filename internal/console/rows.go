package console

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"io"
	"iter"
	"slices"
	"strings"
)

// A Column of rows of type T. The table and the page have only the brief columns, the CSV has all columns.
type Column[T any] struct {
	Name  string
	Brief bool
	Text  func(T) string
}

// Brief returns a column of the table and of the CSV.
func Brief[T any](name string, text func(T) string) Column[T] { return Column[T]{name, true, text} }

// Detail returns a column of the CSV only.
func Detail[T any](name string, text func(T) string) Column[T] { return Column[T]{name, false, text} }

// PrintRows prints a stream of rows as a table, CSV or JSON. CSV and JSON keep one row in memory. A table needs the width
// of its columns, so PrintRows writes it in chunks. A short table has no empty columns at its end. A quiet console prints no table.
func PrintRows[T any](c *Console, columns []Column[T], rows iter.Seq2[T, error]) error {
	switch c.Format {
	case FormatJSON:
		return PrintJSON(c, rows)
	case FormatCSV:
		return printCSV(c.Stdout, columns, rows)
	}
	if c.Quiet {
		return nil
	}
	columns = brief(columns)
	const chunk = 1000
	var lines [][]string
	flush := func() error {
		var b bytes.Buffer
		tableWithin(&b, lines, c.outWidth())
		lines = lines[:0]
		_, err := c.Stdout.Write(b.Bytes())
		return err
	}
	lines = append(lines, names(columns))
	n := 0
	for row, err := range rows {
		if err != nil {
			return err
		}
		n++
		cells := make([]string, len(columns))
		for i, column := range columns {
			cells[i] = Printable(column.Text(row))
		}
		if lines = append(lines, cells); len(lines) >= chunk {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if n == 0 {
		_, err := io.WriteString(c.Stdout, "none\n")
		return err
	}
	if n < chunk {
		lines = trimColumns(lines)
	}
	return flush()
}

// trimColumns removes the last columns that are empty in each row. The first row has the names.
func trimColumns(rows [][]string) [][]string {
	used := 0
	for _, row := range rows[1:] {
		for i, text := range row {
			if text != "" {
				used = max(used, i+1)
			}
		}
	}
	for i := range rows {
		rows[i] = rows[i][:used]
	}
	return rows
}

// brief returns the brief columns.
func brief[T any](columns []Column[T]) []Column[T] {
	return slices.DeleteFunc(slices.Clone(columns), func(column Column[T]) bool { return !column.Brief })
}

func names[T any](columns []Column[T]) []string {
	out := make([]string, len(columns))
	for i, c := range columns {
		out[i] = c.Name
	}
	return out
}

// PrintJSON prints a stream of rows as a JSON array. It ends the line.
func PrintJSON[T any](c *Console, rows iter.Seq2[T, error]) error {
	before := "[\n  "
	for row, err := range rows {
		if err != nil {
			return err
		}
		var b bytes.Buffer
		b.WriteString(before)
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(row); err != nil {
			return err
		}
		if _, err := c.Stdout.Write(bytes.TrimRight(b.Bytes(), "\n")); err != nil {
			return err
		}
		before = ",\n  "
	}
	end := "\n]\n"
	if strings.HasPrefix(before, "[") {
		end = "[]\n"
	}
	_, err := io.WriteString(c.Stdout, end)
	return err
}

func printCSV[T any](w io.Writer, columns []Column[T], rows iter.Seq2[T, error]) error {
	c := csv.NewWriter(w)
	if err := c.Write(names(columns)); err != nil {
		return err
	}
	for row, err := range rows {
		if err != nil {
			return err
		}
		cells := make([]string, len(columns))
		for i, column := range columns {
			cells[i] = harmlessCell(column.Text(row))
		}
		if err := c.Write(cells); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}

// harmlessCell prevents a spreadsheet from reading the name of a document as a formula.
func harmlessCell(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])) {
		return "'" + text
	}
	return text
}

// Cell returns the text of a cell of a CSV file that PrintRows has written.
func Cell(text string) string {
	if bare, ok := strings.CutPrefix(text, "'"); ok && harmlessCell(bare) == text {
		return bare
	}
	return text
}
