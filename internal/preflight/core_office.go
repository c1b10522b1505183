package preflight

import (
	"encoding/xml"
	"errors"
	"io"
	"net/url"
	"path"
	"slices"
	"strings"
)

// officeParts are the parts of Office Open XML documents.
type officeParts struct{}

const (
	contentTypes  = "[content_types].xml"
	packageRels   = "_rels/.rels"
	relsNamespace = "http://schemas.openxmlformats.org/package/2006/relationships"
	typeNamespace = "http://schemas.openxmlformats.org/package/2006/content-types"
)

// officeMetadata are the parts that hold only metadata.
var officeMetadata = []string{
	"docprops/core.xml", "docprops/app.xml", "docprops/custom.xml", "docmetadata/labelinfo.xml",
	"docprops/thumbnail.jpeg", "docprops/thumbnail.jpg", "docprops/thumbnail.png", "docprops/thumbnail.emf", "docprops/thumbnail.wmf",
}

// isMetadata is not certain of other parts in the folders of metadata.
func (officeParts) isMetadata(name string) (metadata, ok bool) {
	if !strings.HasPrefix(name, "docprops/") && !strings.HasPrefix(name, "docmetadata/") {
		return false, true
	}
	metadata = slices.Contains(officeMetadata, name)
	return metadata, metadata
}

func (officeParts) isComplete(names map[string]bool) bool {
	return names[contentTypes] && names[packageRels]
}

func (officeParts) write(h coreHash, name string, kept map[string]bool, content io.Reader) bool {
	switch {
	case name == contentTypes:
		return writeContentTypes(h, kept, content)
	case strings.HasSuffix(name, ".rels"):
		return writeRelationships(h, name, content)
	case strings.HasPrefix(name, "word/") && strings.HasSuffix(name, ".xml"):
		return copyWord(h, content)
	}
	_, err := io.Copy(h, content)
	return err == nil
}

// metadataTypes are the ends of the types of relationships that lead to metadata.
var metadataTypes = []string{
	"/metadata/core-properties", "/extended-properties", "/extendedProperties", "/custom-properties", "/customProperties",
	"/metadata/thumbnail", "/classificationlabels",
}

// writeRelationships writes the relationships of a part, those of the package without their ids, which nothing refers to, and without
// the ones that lead to metadata. It returns false if another relationship leads there: then that part is more than metadata.
func writeRelationships(h coreHash, name string, content io.Reader) bool {
	elements, ok := readElements(content, relsNamespace, "Relationships", map[string][]string{
		"Relationship": {"Id", "Type", "Target", "TargetMode"},
	})
	var lines []string
	for _, e := range elements {
		target, err := url.PathUnescape(e["Target"])
		if target = strings.ToLower(target); err != nil {
			return false
		}
		if e["TargetMode"] != "External" && (strings.Contains(target, "docprops") || strings.Contains(target, "docmetadata")) {
			known := slices.Contains(officeMetadata, strings.TrimPrefix(target, "/")) &&
				slices.ContainsFunc(metadataTypes, func(end string) bool { return strings.HasSuffix(e["Type"], end) })
			if name != packageRels || !known {
				return false
			}
			continue
		}
		id := e["Id"]
		if name == packageRels {
			id = ""
		}
		lines = append(lines, frame(id, e["Type"], e["Target"], e["TargetMode"]))
	}
	writeLines(h, lines)
	return ok
}

// writeContentTypes writes the types of the parts that are no metadata.
func writeContentTypes(h coreHash, kept map[string]bool, content io.Reader) bool {
	elements, ok := readElements(content, typeNamespace, "Types", map[string][]string{
		"Default": {"Extension", "ContentType"}, "Override": {"PartName", "ContentType"},
	})
	endings := map[string]bool{}
	for name := range kept {
		endings[strings.TrimPrefix(path.Ext(name), ".")] = true
	}
	seen := map[string]bool{}
	var lines []string
	for _, e := range elements {
		extension, part := strings.ToLower(e["Extension"]), strings.ToLower(strings.TrimPrefix(e["PartName"], "/"))
		if key := frame(extension, part); seen[key] {
			return false
		} else {
			seen[key] = true
		}
		typ := strings.ToLower(e["ContentType"])
		switch {
		case extension != "" && !endings[extension]:
			continue
		case slices.Contains(officeMetadata, part):
			if !strings.Contains(typ, "properties+xml") && !strings.HasPrefix(typ, "image/") && !strings.Contains(typ, "classificationlabels") {
				return false
			}
			continue
		}
		lines = append(lines, frame(extension, part, e["ContentType"]))
	}
	writeLines(h, lines)
	return ok
}

// openDocumentParts are the parts of OpenDocument files.
type openDocumentParts struct{}

const manifest = "meta-inf/manifest.xml"

func (openDocumentParts) isMetadata(name string) (metadata, ok bool) {
	return name == "meta.xml" || strings.HasPrefix(name, "thumbnails/"), true
}

func (openDocumentParts) isComplete(names map[string]bool) bool {
	return names["content.xml"] && names[manifest]
}

func (openDocumentParts) write(h coreHash, name string, _ map[string]bool, content io.Reader) bool {
	switch {
	case name == manifest:
		return writeManifest(h, content)
	case name == "settings.xml":
		s := xmlScanner{out: h, tag: withoutPlaceOfWindow()}
		return s.copy(content)
	case strings.HasSuffix(name, ".xml"), strings.HasSuffix(name, ".rdf"):
		s := xmlScanner{out: h, tag: withoutLinksToMetadata}
		return s.copy(content)
	}
	_, err := io.Copy(h, content)
	return err == nil
}

// writeManifest writes the list of the parts that are no metadata. An encrypted part has more than one element in the list.
func writeManifest(h coreHash, content io.Reader) bool {
	elements, ok := readElements(content, "urn:oasis:names:tc:opendocument:xmlns:manifest:1.0", "manifest", map[string][]string{
		"file-entry": {"full-path", "media-type", "version"},
	})
	var lines []string
	for _, e := range elements {
		if metadata, _ := (openDocumentParts{}).isMetadata(strings.ToLower(e["full-path"])); !metadata {
			lines = append(lines, frame(e["full-path"], e["media-type"], e["version"]))
		}
	}
	writeLines(h, lines)
	return ok
}

func writeLines(h coreHash, lines []string) {
	slices.Sort(lines)
	h.number(len(lines))
	for _, l := range lines {
		h.text(l)
	}
}

// frame joins texts so that no two lists give the same text. XML has no zero byte.
func frame(texts ...string) string { return strings.Join(texts, "\x00") }

// maxListed is the most elements of a list of parts.
const maxListed = 100_000

// readElements reads a list of empty elements, as the containers of office documents have them. ok is false if the list has anything
// else, because then something may depend on it. Attributes of other names are not allowed, except those of the root.
func readElements(r io.Reader, namespace, root string, allowed map[string][]string) (elements []map[string]string, ok bool) {
	d := xml.NewDecoder(r)
	depth, ended := 0, false
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return elements, ended
		}
		if err != nil || len(elements) > maxListed {
			return nil, false
		}
		switch x := token.(type) {
		case xml.StartElement:
			depth++
			if x.Name.Space != namespace || ended || depth > 2 || depth == 1 && x.Name.Local != root {
				return nil, false
			}
			if depth == 1 {
				continue
			}
			e, ok := readAttributes(x, allowed[x.Name.Local])
			if !ok {
				return nil, false
			}
			elements = append(elements, e)
		case xml.EndElement:
			depth--
			ended = depth == 0
		case xml.CharData:
			if strings.TrimSpace(string(x)) != "" {
				return nil, false
			}
		case xml.ProcInst, xml.Comment:
		default:
			return nil, false
		}
	}
}

func readAttributes(x xml.StartElement, allowed []string) (attributes map[string]string, ok bool) {
	attributes = map[string]string{}
	for _, a := range x.Attr {
		if a.Name.Space != "" && a.Name.Space != x.Name.Space || !slices.Contains(allowed, a.Name.Local) || strings.Contains(a.Value, "\x00") {
			return nil, false
		}
		if _, twice := attributes[a.Name.Local]; twice {
			return nil, false
		}
		attributes[a.Name.Local] = a.Value
	}
	return attributes, len(attributes) > 0
}
