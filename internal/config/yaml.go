package config

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// The limits of a config file. The parser's time grows with the square of the
// nesting and its stack grows with the nesting, so kbsync checks all three
// before it calls the parser.
const (
	maxFile  = 1 << 20
	maxLine  = 16 << 10
	maxDepth = 200
)

type nodeKind int

const (
	nullNode nodeKind = iota
	scalarNode
	listNode
	mappingNode
	brokenNode // its mistake is already reported
)

// node is a value of the file, with aliases and merges resolved. Aliases share
// their node, so they cannot make a small file large.
type node struct {
	kind      nodeKind
	line, col int
	text      string // of a scalar
	items     []*node
	entries   []entry
}

type entry struct {
	key       string
	line, col int
	value     *node
}

// document parses a file with one YAML document. It passes each mistake to
// report. It returns nil if no part of the file is usable.
func document(file []byte, report func(line, col int, name, text string)) *node {
	file = bytes.TrimPrefix(file, []byte("\ufeff"))
	file = bytes.ReplaceAll(file, []byte("\r\n"), []byte("\n"))
	if line, col, text := unreadable(file); text != "" {
		report(line, col, "", text)
		return nil
	}
	parsed, err := parseYAML(file)
	if err != nil {
		line, col, text := 1, 1, "is not valid YAML"
		if y, ok := errors.AsType[yaml.Error](err); ok {
			text = "is not valid YAML: " + printable(y.GetMessage())
			if t := y.GetToken(); t != nil && t.Position != nil {
				line, col = max(t.Position.Line, 1), max(t.Position.Column, 1)
			}
		}
		report(line, col, "", text)
		return nil
	}
	r := &reader{report: report, lines: bytes.Split(file, []byte("\n")), anchors: map[string]*node{}, open: map[string]bool{}}
	var root *node
	for _, doc := range parsed.Docs {
		switch doc.Body.(type) {
		case nil, *ast.DirectiveNode, *ast.CommentGroupNode:
			continue
		}
		if root != nil {
			line, col := position(doc.Body)
			report(line, col, "", "a second document begins here; keep one document per file")
			return nil
		}
		root = r.read(doc.Body, "")
	}
	switch {
	case root == nil || root.kind == nullNode || root.kind == mappingNode && len(root.entries) == 0:
		report(1, 1, "", "the file is empty; write at least one sync, or let kbsync init write a file")
		return nil
	case root.kind == brokenNode:
		return nil
	case root.kind != mappingNode:
		report(root.line, root.col, "", "the file contains no settings; write keys and values, such as state: kbsync.db")
		return nil
	}
	return root
}

// parseYAML turns a panic of the parser into an error.
func parseYAML(file []byte) (_ *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("parse YAML: %v", r)
		}
	}()
	return parser.ParseBytes(file, 0, parser.AllowDuplicateMapKey())
}

// printable escapes control characters, which would change the terminal.
func printable(text string) string {
	var b strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// unreadable finds input that must not reach the parser.
func unreadable(file []byte) (line, col int, text string) {
	if len(file) > maxFile {
		return 1, 1, fmt.Sprintf("the file is larger than %v, so it cannot be a config file", Size(maxFile))
	}
	depth := 0
	line = 1
	for l := range bytes.Lines(file) {
		if !utf8.Valid(l) {
			return line, 1, "this line is not UTF-8; save the file as UTF-8"
		}
		if len(l) > maxLine {
			return line, 1, fmt.Sprintf("this line is longer than %v; split it", Size(maxLine))
		}
		for i, c := range l {
			switch c {
			case '[', '{':
				depth++
			case ']', '}':
				depth = max(depth-1, 0)
			case 0:
				return line, i + 1, "the file contains a NUL byte; remove it"
			}
			if depth > maxDepth {
				return line, i + 1, "brackets are nested too deeply here; close them"
			}
		}
		line++
	}
	return 0, 0, ""
}

// reader converts the parser's tree to nodes.
type reader struct {
	report  func(line, col int, name, text string)
	lines   [][]byte
	anchors map[string]*node
	open    map[string]bool // anchors whose value is not read to its end
}

func position(n ast.Node) (line, col int) {
	if n == nil {
		return 1, 1
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return max(t.Position.Line, 1), max(t.Position.Column, 1)
	}
	return 1, 1
}

// read returns the node of an ast.Node; name is its key path in messages.
func (r *reader) read(n ast.Node, name string) *node {
	line, col := position(n)
	out := &node{line: line, col: col}
	switch n := n.(type) {
	case nil, *ast.NullNode:
	case *ast.MappingNode:
		r.readMapping(out, n.Values, name)
	case *ast.MappingValueNode:
		r.readMapping(out, []*ast.MappingValueNode{n}, name)
	case *ast.SequenceNode:
		out.kind = listNode
		for i, item := range n.Values {
			out.items = append(out.items, r.read(item, fmt.Sprintf("%s[%d]", name, i)))
		}
	case *ast.AnchorNode:
		anchor := nodeText(n.Name)
		outer := r.open[anchor]
		r.open[anchor] = true
		out = r.read(n.Value, name)
		r.open[anchor] = outer
		r.anchors[anchor] = out
	case *ast.AliasNode:
		return r.alias(nodeText(n.Value), out, name)
	case *ast.TagNode:
		if tag := n.Start.Value; tag != "!!str" {
			return r.broken(out, name, fmt.Sprintf("the tag %s is not supported; remove it", show(tag)))
		}
		out = r.read(n.Value, name)
	case *ast.LiteralNode:
		out.kind, out.text = scalarNode, nodeText(n.Value)
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		out.kind, out.text = scalarNode, nodeText(n)
		out.col = r.plainColumn(out)
	default:
		return r.broken(out, name, "this kind of YAML is not supported; write a plain value")
	}
	return out
}

// plainColumn returns the column of a scalar. It corrects a mistake of the
// parser, which takes blanks after a plain scalar for blanks before it.
func (r *reader) plainColumn(n *node) int {
	words := strings.Fields(n.text)
	if n.line > len(r.lines) || len(words) == 0 {
		return n.col
	}
	line := r.lines[n.line-1]
	blanks := len(line) - len(bytes.TrimRight(line, " \t"))
	if blanks == 0 {
		return n.col
	}
	want := n.text
	if !bytes.Contains(line, []byte(want)) {
		want = words[0] // the scalar continues on the next line
	}
	runes := []rune(string(line))
	for col := min(n.col, len(runes)); col > max(n.col-1-blanks, 0); col-- {
		if strings.HasPrefix(string(runes[col-1:]), want) {
			return col
		}
	}
	return n.col
}

func (r *reader) alias(anchor string, at *node, name string) *node {
	if r.open[anchor] {
		return r.broken(at, name, fmt.Sprintf("the alias %s is inside the value that it repeats; write the value out", show("*"+anchor)))
	}
	target := r.anchors[anchor]
	if target == nil {
		return r.broken(at, name, fmt.Sprintf("no anchor %s is defined before this alias; define it first", show("&"+anchor)))
	}
	return target
}

func (r *reader) broken(at *node, name, text string) *node {
	r.report(at.line, at.col, name, text)
	at.kind = brokenNode
	return at
}

func (r *reader) readMapping(out *node, values []*ast.MappingValueNode, name string) {
	out.kind = mappingNode
	var merged []*node
	seen := map[string]int{}
	for i, v := range values {
		key, ok := keyText(v.Key)
		line, col := position(v.Key)
		if i == 0 {
			out.line, out.col = line, col
		}
		full := join(name, keyName(key))
		if !ok {
			r.report(line, col, name, "this key is not a plain word; write a setting's name")
			r.read(v.Value, full)
			continue
		}
		if first, twice := seen[key]; twice {
			r.report(line, col, full, fmt.Sprintf("is a duplicate of line %d; keep one of them", first))
			r.read(v.Value, full)
			continue
		}
		seen[key] = line
		value := r.read(v.Value, full)
		if _, merge := v.Key.(*ast.MergeKeyNode); merge {
			merged = append(merged, r.merge(value, full)...)
			continue
		}
		out.entries = append(out.entries, entry{key: key, line: line, col: col, value: value})
	}
	for _, m := range merged {
		for _, e := range m.entries {
			if _, have := seen[e.key]; !have {
				seen[e.key] = e.line
				out.entries = append(out.entries, e)
			}
		}
	}
}

// merge returns the mappings of a merge key. Earlier mappings override later ones.
func (r *reader) merge(value *node, name string) []*node {
	from := []*node{value}
	if value.kind == listNode {
		from = value.items
	}
	return slices.DeleteFunc(slices.Clone(from), func(n *node) bool {
		if n.kind != mappingNode && n.kind != brokenNode {
			r.report(n.line, n.col, name, "only a mapping can be merged; write the alias of one")
		}
		return n.kind != mappingNode
	})
}

func keyText(k ast.MapKeyNode) (string, bool) {
	switch k := k.(type) {
	case *ast.MappingKeyNode:
		return nodeText(k.Value), k.Value != nil
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode, *ast.MergeKeyNode:
		return nodeText(k), true
	}
	return "", false
}

// nodeText returns the text of a scalar, without its quotes.
func nodeText(n ast.Node) string {
	if n == nil {
		return ""
	}
	if s, ok := n.(*ast.StringNode); ok {
		return s.Value
	}
	if t := n.GetToken(); t != nil {
		return t.Value
	}
	return ""
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_.<-]{1,60}$`)

// keyName returns a key for a message. It quotes a key that is not a plain word.
func keyName(key string) string {
	if plainKey.MatchString(key) && !strings.HasPrefix(key, "eyJ") {
		return key
	}
	return show(key)
}

func join(name, key string) string {
	if name == "" {
		return key
	}
	return name + "." + key
}

// show quotes and shortens a value for a message. It never shows a text that
// could be a secret.
func show(text string) string {
	switch {
	case strings.Contains(text, "eyJ"):
		return "a text that looks like a token"
	case strings.Contains(text, "://") && (strings.Contains(text, "@") || strings.Contains(text, "password=")):
		return "the URL"
	}
	if r := []rune(text); len(r) > 60 {
		text = string(r[:57]) + "..."
	}
	return fmt.Sprintf("%q", text)
}
