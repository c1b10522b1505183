package watcher

import (
	"context"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// levelNames is about the number of names up to which a level is read.
	levelNames = 1 << 14
	// levelPages is the number of pages after which a level is given up, although each had a folder.
	levelPages = 64
)

// A levelName is a folder or an object directly below a prefix.
type levelName struct {
	object // of a folder only the key, with the slash at its end
	folder bool
	weight float64 // the estimated number of pages in the folder
}

// level returns all names directly below prefix, in order. ok is false if a listing cannot be split by them: the store does not
// answer, ignores the delimiter or shows names that do not fit; there are too many names; or most pages would have objects only.
func (b *Bucket) level(ctx context.Context, prefix string) (names []levelName, ok bool) {
	var lastObject, lastFolder string
	token := ""
	names = []levelName{} // not nil if there are none
	for range levelPages {
		var objects []object
		var folders []string
		var next string
		err := b.request(ctx, func(ctx context.Context) (err error) {
			objects, folders, next, err = b.service.level(ctx, prefix, token)
			return err
		})
		if err != nil {
			if ctx.Err() == nil && faultOf(err) == faultPermanent {
				b.flat.Store(true)
			}
			return nil, false
		}
		for _, o := range objects {
			name, below := strings.CutPrefix(o.key, prefix)
			switch {
			case strings.Contains(name, "/"):
				b.flat.Store(true) // the store ignores the delimiter
				return nil, false
			case !below || o.key < lastObject && !b.unordered():
				return nil, false
			}
			lastObject = o.key
			names = append(names, levelName{object: o})
		}
		for _, folder := range folders {
			name, below := strings.CutPrefix(folder, prefix)
			if !below || !isPlainFolder(name) || folder < lastFolder && !b.unordered() {
				return nil, false
			}
			lastFolder = folder
			names = append(names, levelName{object: object{key: folder}, folder: true})
		}
		if next == "" {
			slices.SortStableFunc(names, func(a, b levelName) int { return strings.Compare(a.key, b.key) })
			// A name is on two pages if another one was written between them.
			return slices.CompactFunc(names, func(a, b levelName) bool { return a.key == b.key }), true
		}
		if len(folders) == 0 || len(names) > levelNames {
			return nil, false
		}
		token = next
	}
	return nil, false
}

// isPlainFolder reports whether a listing by this folder's name as the prefix is safe. Stores and gateways to file systems treat
// other names in ways of their own, and the listing could lack objects.
func isPlainFolder(name string) bool {
	name, folder := strings.CutSuffix(name, "/")
	if !folder || name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\\\ufffd") || !utf8.ValidString(name) {
		return false
	}
	return !strings.ContainsFunc(name, unicode.IsControl)
}

// divide returns the parts by which a listing is split, in order and disjoint; nil if that would not make it faster. Each of the names is in one
// of the parts, and an object of the names that no part lists is a part by itself.
//
// A part is listed by its prefix alone, so that nothing depends on the order in which the store lists. Only the size of the parts
// rests on an estimate: the sample has the first objects, of which per make a page. Without a sample, weight is the number of
// pages.
func divide(names []levelName, sample []object, per int, weight float64) []*part {
	total, ok := weigh(names, sample, per, weight)
	if !ok || total == 0 || total*float64(per) < 2*float64(len(sample)) {
		return nil
	}
	for target := float64(partPages); ; target *= 2 {
		d := division{target: target}
		d.add(names, true)
		if d.lists > 0 && (d.lists == 1 || float64(d.lists) <= total) {
			d.handDown(sample)
			return d.parts
		}
		if target >= total {
			return nil
		}
	}
}

// weigh estimates the pages of each folder and returns their sum. ok is false if the names do not cover the sample.
func weigh(names []levelName, sample []object, per int, weight float64) (total float64, ok bool) {
	counts, last := make([]int, len(names)), -1
	for _, o := range sample {
		i, found := slices.BinarySearchFunc(names, o.key, func(n levelName, key string) int { return strings.Compare(n.key, key) })
		if !found {
			if i--; i < 0 || !names[i].folder || !strings.HasPrefix(o.key, names[i].key) {
				return 0, false
			}
		}
		counts[i]++
		last = max(last, i)
	}
	folders, seen := 0, 0
	for i := range names {
		n := &names[i]
		if !n.folder {
			continue
		}
		if folders++; i > last {
			continue
		}
		seen = folders
		n.weight = float64(counts[i]) / float64(per)
		if i == last {
			n.weight *= 3 // the sample ends in it
		}
		total += n.weight
	}
	mean := weight / float64(max(folders, 1))
	if seen > 0 {
		mean = total / float64(seen)
	}
	for i := range names {
		if n := &names[i]; n.folder && i > last {
			n.weight = mean
			total += mean
		}
	}
	return total, true
}

// A division collects the parts of a listing.
type division struct {
	target float64 // the number of pages above which a group of names is divided further
	parts  []*part
	lists  int // the number of parts that have to be listed
}

// add adds the parts of some names that begin alike. The names of the top are always divided.
func (d *division) add(names []levelName, top bool) {
	first := slices.IndexFunc(names, func(n levelName) bool { return n.folder })
	if first < 0 {
		d.addObjects(names)
		return
	}
	weight := 0.0
	for i := range names {
		weight += names[i].weight
	}
	if len(names) == 1 {
		d.addList(names[0].key, weight)
		return
	}
	common := commonPrefix(names[0].key, names[len(names)-1].key, names[first].key)
	if !top && weight <= d.target {
		d.addList(names[first].key[:common], weight)
		return
	}
	for len(names) > 0 {
		next := firstRune(names[0].key[common:])
		end := 1
		for next != "" && end < len(names) && firstRune(names[end].key[common:]) == next {
			end++
		}
		d.add(names[:end], false)
		names = names[end:]
	}
}

func (d *division) addList(prefix string, weight float64) {
	d.parts = append(d.parts, &part{prefix: prefix, weight: weight})
	d.lists++
}

// addObjects adds objects that need no further listing.
func (d *division) addObjects(names []levelName) {
	if n := len(d.parts); n == 0 || !d.parts[n-1].done {
		d.parts = append(d.parts, &part{done: true, pages: []page{{}}})
	}
	p := &d.parts[len(d.parts)-1].pages[0]
	for i := range names {
		p.objects = append(p.objects, names[i].object)
	}
}

// handDown gives the sample to the part in which it ends.
func (d *division) handDown(sample []object) {
	if len(sample) == 0 {
		return
	}
	last := sample[len(sample)-1].key
	for _, p := range d.parts {
		if !p.done && strings.HasPrefix(last, p.prefix) {
			p.sample = objectsBelow(sample, p.prefix)
		}
	}
}

// objectsBelow returns the objects whose keys begin with prefix. It changes the slice only if there are others.
func objectsBelow(objects []object, prefix string) []object {
	first := slices.IndexFunc(objects, func(o object) bool { return !strings.HasPrefix(o.key, prefix) })
	if first < 0 {
		return objects
	}
	kept := slices.Clone(objects[:first])
	for _, o := range objects[first:] {
		if strings.HasPrefix(o.key, prefix) {
			kept = append(kept, o)
		}
	}
	return kept
}

// commonPrefix returns the length of the prefix that a and b share. It ends between two characters of text.
func commonPrefix(a, b, text string) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	for n > 0 && n < len(text) && !utf8.RuneStart(text[n]) {
		n--
	}
	return n
}

// firstRune returns the first character of s, or its first byte if that is not UTF-8.
func firstRune(s string) string {
	_, n := utf8.DecodeRuneInString(s)
	return s[:n]
}
