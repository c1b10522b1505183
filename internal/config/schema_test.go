package config

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
)

// update makes the test write the schema in place of comparing it: make reference.
var update = flag.Bool("update", false, "write the schema")

const schemaFile = "../../docs/kbsync.schema.json"

type schema map[string]any

// jsonSchema returns a JSON Schema of the config file for editors, generated from the table of settings. It accepts every file that Parse
// accepts, except for unusual spellings of values, such as t for true. It uses draft 7, because most editors know no later one.
func jsonSchema() schema {
	root := mapping("Settings of kbsync.")
	sync := mapping("A root and its knowledge base.")
	defaults := mapping("Settings that all syncs have, unless they set their own.")
	for _, s := range Settings() {
		key, ofSync := strings.CutPrefix(s.Key, "syncs[].")
		if !ofSync {
			root.put(key, s.schema())
			continue
		}
		sync.put(key, s.schema())
		if !s.noDefault {
			defaults.put(key, s.schema())
		}
	}
	sync["type"], sync["required"] = "object", []string{"name", "root"}
	root["type"] = "object"
	root.put("defaults", defaults)
	root.put("syncs", schema{"type": []string{"array", "null"}, "items": sync, "description": "The syncs: pairs of a root and a knowledge base."})
	root["$schema"], root["$id"], root["title"] = "http://json-schema.org/draft-07/schema#", schemaAddress, "kbsync.yaml"
	return root
}

// mapping returns the schema of a mapping, which may be empty when all its keys are comments.
func mapping(description string) schema {
	return schema{"type": []string{"object", "null"}, "additionalProperties": false, "properties": schema{}, "description": description}
}

// put adds the schema of a key, such as batch.documents, and of the mappings that it is in.
func (s schema) put(key string, value schema) {
	properties := s["properties"].(schema)
	first, rest, nested := strings.Cut(key, ".")
	if !nested {
		properties[key] = value
		return
	}
	if properties[first] == nil {
		properties[first] = mapping("The settings below " + first + ".")
	}
	properties[first].(schema).put(rest, value)
}

// schema returns the schema of a setting's value.
func (s Setting) schema() schema {
	text := schema{"type": "string", "minLength": 1}
	list := func(item schema) schema {
		return schema{"anyOf": []schema{{"type": "array", "items": item}, text}}
	}
	var v schema
	switch s.Kind {
	case KindChoice:
		v = schema{"enum": s.Choices}
	case KindBool:
		v = schema{"type": "boolean"}
	case KindInt, KindNumber:
		v = schema{"type": map[Kind]string{KindInt: "integer", KindNumber: "number"}[s.Kind], "minimum": 0}
		if s.positive {
			v["minimum"] = 1
		}
	case KindSize:
		v = schema{"type": []string{"string", "integer"}, "minimum": 0, "pattern": `^[0-9][0-9.,]* ?([kKmMgGtTpPeE]?[iI]?[bB])?$`}
	case KindDuration:
		v = schema{"type": []string{"string", "integer"}, "maximum": 0, "minimum": 0, "pattern": `^(0|([0-9.]+(w|d|h|m|s|ms|us|µs|ns))+)$`}
	case KindPercent:
		v = schema{"type": []string{"string", "integer"}, "minimum": 0, "pattern": `^([0-9]+|[0-9.]+ *%|off)$`}
	case KindName:
		v = schema{"type": "string", "pattern": namePattern.String()}
	case KindAddress:
		v = schema{"type": "string", "pattern": `:[0-9]+$`}
	case KindPatterns, KindPaths, KindCommand, KindHook:
		v = list(text)
	default:
		v = text
	}
	if s.off {
		v = schema{"anyOf": []schema{v, {"const": "off"}}}
	}
	v["description"] = s.Usage
	if s.Default != "" {
		v["default"] = s.Default
	}
	return v
}

func TestSchemaIsUpToDate(t *testing.T) {
	var want bytes.Buffer
	e := json.NewEncoder(&want)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(jsonSchema()); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(schemaFile, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(schemaFile)
	if err != nil || !bytes.Equal(bytes.ReplaceAll(got, []byte("\r\n"), []byte("\n")), want.Bytes()) {
		t.Fatalf("docs/kbsync.schema.json is out of date (%v): run make reference", err)
	}
}
