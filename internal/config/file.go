package config

import (
	"fmt"
	"slices"
	"strings"
)

// file applies the file: first its defaults, then the rest.
func (b *builder) file(root *node) {
	for _, e := range root.entries {
		if e.key == "defaults" {
			b.mapping(e.value, "syncs[].", "defaults.", func(s *Setting) any {
				if s.noDefault {
					return nil
				}
				return b.target(s, nil, &b.base)
			})
		}
	}
	b.mapping(root, "", "", func(s *Setting) any { return b.target(s, b.config, nil) })
	for _, e := range root.entries {
		if e.key != "syncs" {
			continue
		}
		at := place{"syncs", e.value.line, e.value.col}
		switch e.value.kind {
		case nullNode, brokenNode:
		case listNode:
			for i, item := range e.value.items {
				b.fileSync(item, fmt.Sprintf("syncs[%d]", i))
			}
		default:
			b.fail(at, "is not a list; begin each sync with a dash, such as - name: handbook")
		}
	}
}

// fileSync adds a sync of the file.
func (b *builder) fileSync(n *node, name string) {
	b.places[name] = place{name, n.line, n.col}
	switch n.kind {
	case brokenNode:
		return
	case mappingNode:
	default:
		b.fail(b.places[name], "%s is not a sync; write keys and values after the dash, such as name: handbook", n.describe())
		return
	}
	sync := b.base
	b.mapping(n, "syncs[].", name+".", func(s *Setting) any { return b.target(s, nil, &sync) })
	b.override(nil, &sync)
	b.config.Syncs = append(b.config.Syncs, sync)
}

// mapping applies the entries of n. The argument table is the prefix of their
// keys in the table of settings, shown the prefix of their names in messages.
// The function target returns the pointer to a setting's field, or nil where
// the setting is not allowed.
func (b *builder) mapping(n *node, table, shown string, target func(*Setting) any) {
	name := strings.TrimSuffix(shown, ".")
	switch n.kind {
	case nullNode, brokenNode:
		return
	case mappingNode:
	default:
		keys := b.children(table)
		b.fail(place{name, n.line, n.col}, "%s is not a mapping; write keys and values: %s", n.describe(), strings.Join(keys, ", "))
		return
	}
	for _, e := range n.entries {
		if table == "" && (e.key == "syncs" || e.key == "defaults") {
			continue
		}
		if i := slices.IndexFunc(b.settings, func(s Setting) bool { return s.Key == table+e.key }); i >= 0 {
			b.leaf(&b.settings[i], e, shown+e.key, target)
			continue
		}
		if !strings.ContainsAny(e.key, ".[") && b.isGroup(table+e.key) {
			b.mapping(e.value, table+e.key+".", shown+e.key+".", target)
			continue
		}
		b.unknown(e, table, shown)
	}
}

// isGroup reports whether a key of the table has keys below it.
func (b *builder) isGroup(key string) bool {
	return slices.ContainsFunc(b.settings, func(s Setting) bool { return strings.HasPrefix(s.Key, key+".") })
}

// leaf applies the entry of one setting.
func (b *builder) leaf(s *Setting, e entry, name string, target func(*Setting) any) {
	ptr := target(s)
	switch {
	case ptr == nil:
		b.fail(place{name, e.line, e.col}, "belongs to one sync; write it below syncs")
	case e.value.kind == nullNode: // such as a key whose values are all commented out
		b.open[name] = place{name, e.line, e.col}
	default:
		b.leafValue(s, e.value, name, ptr)
	}
}

// leafValue stores the value of one setting, which is not null.
func (b *builder) leafValue(s *Setting, n *node, name string, ptr any) {
	at := place{name, n.line, n.col}
	b.places[name] = at
	list, isList := ptr.(*[]string)
	switch {
	case n.kind == brokenNode:
	case n.kind == scalarNode:
		b.assign(s, []value{{n.text, at}}, ptr, b.fileDir())
	case n.kind == listNode && isList:
		vals := b.listValues(s, n, name)
		if s.Kind == KindCommand || s.Kind == KindHook { // arguments are passed on unchanged
			*list = words(vals)
			return
		}
		b.assign(s, vals, ptr, b.fileDir())
	default:
		b.fail(at, "%s is not a single value; write %s", n.describe(), s.such())
	}
}

// listValues returns the scalars of a list.
func (b *builder) listValues(s *Setting, n *node, name string) []value {
	vals := []value{}
	for i, item := range n.items {
		at := place{fmt.Sprintf("%s[%d]", name, i), item.line, item.col}
		switch item.kind {
		case scalarNode:
			vals = append(vals, value{item.text, at})
		case brokenNode:
		default:
			b.fail(at, "%s is not a text; write %s", item.describe(), s.such())
		}
	}
	return vals
}

func words(vals []value) []string {
	out := make([]string, len(vals))
	for i, v := range vals {
		out[i] = v.text
	}
	return out
}

// describe names a node in a message.
func (n *node) describe() string {
	switch n.kind {
	case nullNode:
		return "an empty value"
	case listNode:
		return "a list"
	case mappingNode:
		return "a mapping"
	}
	return show(n.text)
}

// children returns the keys directly below a prefix of the table.
func (b *builder) children(table string) []string {
	var keys []string
	if table == "" {
		keys = []string{"defaults"}
	}
	for _, s := range b.settings {
		rest, found := strings.CutPrefix(s.Key, table)
		if !found {
			continue
		}
		key, _, _ := strings.Cut(rest, ".")
		key = strings.TrimSuffix(key, "[]")
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// unknown reports a key that the table does not have at this place. It names
// the right place of a setting with that name, or else the nearest key.
func (b *builder) unknown(e entry, table, shown string) {
	if len(b.problems) == maxProblems {
		return // finding the nearest key is slow
	}
	at := place{shown + keyName(e.key), e.line, e.col}
	flat := simplify(e.key)
	if strings.HasSuffix(flat, "token") || flat == "apikey" {
		b.fail(at, "is not a setting, and a token does not belong in the file; set %s, or write api.token_file or api.token_command", tokenVariable)
		return
	}
	if flat != "" {
		for _, s := range b.settings {
			last := s.Key[strings.LastIndexByte(s.Key, '.')+1:]
			if flat != simplify(s.Name) && flat != simplify(last) || strings.HasPrefix(s.Key, table) && table+last == s.Key {
				continue
			}
			b.fail(at, "is not a setting here; write it as %s", strings.Replace(s.Key, "syncs[].", "a sync's ", 1))
			return
		}
	}
	keys := b.children(table)
	b.fail(at, "is not a setting; %s", suggest(e.key, keys, "the keys here are "+strings.Join(keys, ", ")))
}
