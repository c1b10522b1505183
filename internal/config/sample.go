package config

import (
	"bytes"
	"cmp"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// schemaAddress is where editors find the schema of the config file, docs/kbsync.schema.json.
const schemaAddress = "https://raw.githubusercontent.com/kbsync/kbsync/main/docs/kbsync.schema.json"

const sampleHead = `# yaml-language-server: $schema=` + schemaAddress + `
# Settings of kbsync.
#
# A line that begins with "# " is an explanation. A line that begins with "#"
# and no space is a setting with its default, or with an example if it has no
# default: remove the # and change the value. Environment variables override
# this file, and flags override both. Relative paths are relative to the
# directory of this file.
#
# Do not write the token here: set REPLYCX_TOKEN, or use token_file.
`

// Sample returns a commented config file for one root and knowledge base,
// generated from the table of settings. It fills in the required settings of the
// sync and comments out all others. An empty root is ./docs. Without a knowledge
// base its value stays empty and [Parse] reports it as missing, because a wrong
// guess would upload to another customer's knowledge base.
func Sample(root string, knowledgeBase int64) []byte {
	root = cmp.Or(root, "./docs")
	filled := map[string]string{
		"syncs[].name":           cmp.Or(plainName(filepath.Base(root)), "documents"),
		"syncs[].root":           yamlText(root),
		"syncs[].knowledge_base": "",
	}
	if knowledgeBase > 0 {
		filled["syncs[].knowledge_base"] = strconv.FormatInt(knowledgeBase, 10)
	}

	var out bytes.Buffer
	out.WriteString(sampleHead)
	group := "" // the part of the last key before its last dot
	for _, s := range Settings() {
		if s.bucket {
			continue
		}
		parent, key := "", s.Key
		if i := strings.LastIndexByte(s.Key, '.'); i >= 0 {
			parent, key = s.Key[:i], s.Key[i+1:]
		}
		indent := ""
		switch {
		case strings.HasPrefix(parent, "syncs[]."):
			indent = "      "
		case parent == "syncs[]":
			indent = "    "
		case parent != "":
			indent = "  "
		}
		dash := ""
		if parent != group {
			group = parent
			switch {
			case parent == "syncs[]" && key == "name":
				out.WriteString("\nsyncs:\n")
				indent, dash = "  ", "  - "
			case parent != "" && parent != "syncs[]":
				fmt.Fprintf(&out, "\n%s%s:\n", indent[2:], parent[strings.LastIndexByte(parent, '.')+1:])
			}
		}
		if dash == "" {
			out.WriteString("\n")
		}
		fmt.Fprintf(&out, "%s# %s\n", indent, s.Usage)
		if text, ok := filled[s.Key]; ok {
			fmt.Fprintln(&out, strings.TrimRight(cmp.Or(dash, indent)+key+": "+text, " "))
			continue
		}
		fmt.Fprintf(&out, "%s#%s: %s\n", indent, key, cmp.Or(s.Default, s.example))
	}
	return out.Bytes()
}

var plainText = regexp.MustCompile(`^[A-Za-z./][A-Za-z0-9._/-]*$`)

// yamlText returns text as a YAML scalar.
func yamlText(text string) string {
	if plainText.MatchString(text) {
		return text
	}
	return strconv.Quote(text)
}
