package document

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of everything Decode reads. A roster of a thousand rooms is 400 KiB.
const (
	MaxSize  = 4 << 20
	MaxDepth = 32
)

// Why Decode refused. Every error of Decode wraps ErrJSON and one of the others.
var (
	ErrJSON          = errors.New("json refused")
	ErrDuplicateName = errors.New("a name appears twice")
	ErrNameCase      = errors.New("a name is spelled with other capitals")
	ErrUnknownName   = errors.New("unknown name")
	ErrMissingName   = errors.New("a name is missing")
	ErrTooLarge      = errors.New("too large")
	ErrTooDeep       = errors.New("nested too deeply")
	ErrTrailing      = errors.New("something follows the value")
	ErrSyntax        = errors.New("malformed")
)

// Decode reads exactly one JSON value (RFC 8259) from data into v, a pointer.
//
// encoding/json by itself matches names without regard to case, takes the last
// of two equal names, and ignores names that it does not know. Two programs that
// read the same signed bytes could then see different things (RFC 8259 section
// 4 leaves it open), so all three are refused here, in every object, before
// anything is stored in v. Refused as well: invalid UTF-8, null for a value that
// cannot be absent, trailing data, more than MaxSize bytes, more than MaxDepth
// levels.
func Decode(data []byte, v any) error { return decode(data, v, false) }

// decodeComplete also refuses an object that lacks a name, unless the field says
// omitempty or omitzero: signed bytes have no defaults.
func decodeComplete(data []byte, v any) error { return decode(data, v, true) }

func decode(data []byte, v any, complete bool) error {
	if len(data) > MaxSize {
		return refuse(ErrTooLarge, fmt.Sprintf("%d bytes, %d are allowed", len(data), MaxSize))
	}
	if !utf8.Valid(data) || loneSurrogate(data) {
		return refuse(ErrSyntax, "not UTF-8")
	}
	t := reflect.TypeOf(v)
	if t == nil || t.Kind() != reflect.Pointer {
		return refuse(ErrSyntax, "the target is no pointer")
	}
	d := &walker{dec: json.NewDecoder(bytes.NewReader(data)), complete: complete}
	d.dec.UseNumber()
	if err := d.value(t.Elem(), 0, "value"); err != nil {
		return err
	}
	if _, err := d.dec.Token(); !errors.Is(err, io.EOF) {
		return refuse(ErrTrailing, "one JSON value is expected")
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %w", ErrJSON, err)
	}
	return nil
}

// loneSurrogate finds half of a \u pair, which encoding/json would replace.
func loneSurrogate(data []byte) bool {
	for i := 0; i+1 < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		i++ // the escaped character
		switch half := surrogate(data[i:]); half {
		case 0:
		case 'h':
			if i+5 >= len(data) || data[i+5] != '\\' || surrogate(data[i+6:]) != 'l' {
				return true
			}
			i += 10
		default:
			return true
		}
	}
	return false
}

// surrogate tells whether b starts with uD800–uDBFF ('h') or uDC00–uDFFF ('l').
func surrogate(b []byte) byte {
	if len(b) < 5 || b[0] != 'u' || b[1]|0x20 != 'd' {
		return 0
	}
	switch b[2] | 0x20 {
	case '8', '9', 'a', 'b':
		return 'h'
	case 'c', 'd', 'e', 'f':
		return 'l'
	}
	return 0
}

func refuse(why error, detail string) error {
	return fmt.Errorf("%w: %w: %s", ErrJSON, why, detail)
}

// walker reads the tokens beside the Go type that they will be stored in.
type walker struct {
	dec      *json.Decoder
	complete bool
}

func (w *walker) value(t reflect.Type, depth int, at string) error {
	if depth > MaxDepth {
		return refuse(ErrTooDeep, fmt.Sprintf("more than %d levels", MaxDepth))
	}
	tok, err := w.dec.Token()
	if err != nil {
		return refuse(ErrSyntax, err.Error())
	}
	nullable := mayBeNull(t)
	t = shape(t)
	switch tok {
	case json.Delim('{'):
		return w.object(t, depth, at)
	case json.Delim('['):
		return w.array(t, depth, at)
	case nil:
		if !nullable {
			return refuse(ErrSyntax, "null for "+at)
		}
	}
	return nil
}

func (w *walker) object(t reflect.Type, depth int, at string) error {
	seen := make(map[string]string)
	for w.dec.More() {
		tok, err := w.dec.Token()
		if err != nil {
			return refuse(ErrSyntax, err.Error())
		}
		name, ok := tok.(string)
		if !ok {
			return refuse(ErrSyntax, "an object's name is no string")
		}
		if other, ok := seen[fold(name)]; ok {
			why := ErrDuplicateName
			if other != name {
				why = ErrNameCase
			}
			return refuse(why, fmt.Sprintf("%q in %s", name, at))
		}
		seen[fold(name)] = name
		member, err := memberType(t, name, at)
		if err != nil {
			return err
		}
		if err := w.value(member, depth+1, name); err != nil {
			return err
		}
	}
	if w.complete {
		if err := complete(t, seen, at); err != nil {
			return err
		}
	}
	return w.end()
}

func complete(t reflect.Type, seen map[string]string, at string) error {
	if t == nil || t.Kind() != reflect.Struct {
		return nil
	}
	for name, f := range members(t) {
		if _, ok := seen[fold(name)]; !ok && !strings.Contains(f.Tag.Get("json"), ",omit") {
			return refuse(ErrMissingName, fmt.Sprintf("%q in %s", name, at))
		}
	}
	return nil
}

func (w *walker) array(t reflect.Type, depth int, at string) error {
	var elem reflect.Type
	if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
		elem = t.Elem()
	}
	for w.dec.More() {
		if err := w.value(elem, depth+1, at); err != nil {
			return err
		}
	}
	return w.end()
}

func (w *walker) end() error {
	if _, err := w.dec.Token(); err != nil {
		return refuse(ErrSyntax, err.Error())
	}
	return nil
}

// memberType finds what the named member is stored in; nil is "anything".
func memberType(t reflect.Type, name, at string) (reflect.Type, error) {
	switch {
	case t == nil:
		return nil, nil
	case t.Kind() == reflect.Map:
		return t.Elem(), nil
	case t.Kind() != reflect.Struct:
		return nil, nil // json.Unmarshal names the mismatch
	}
	fields := members(t)
	if f, ok := fields[name]; ok {
		return f.Type, nil
	}
	for known := range fields {
		if fold(known) == fold(name) {
			return nil, refuse(ErrNameCase, fmt.Sprintf("%q in %s is spelled %q", name, at, known))
		}
	}
	return nil, refuse(ErrUnknownName, fmt.Sprintf("%q in %s", name, at))
}

// members lists the JSON names of a struct, those of embedded structs included.
func members(t reflect.Type) map[string]reflect.StructField {
	names := make(map[string]reflect.StructField)
	for _, f := range reflect.VisibleFields(t) {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && tag == "" || !f.IsExported() || tag == "-" {
			continue
		}
		if tag == "" {
			tag = f.Name
		}
		names[tag] = f
	}
	return names
}

// fold maps names that encoding/json would take for equal to one string: every
// rune becomes the least of its case orbit (as its foldRune does).
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		for {
			next := unicode.SimpleFold(r)
			if next <= r {
				return next
			}
			r = next
		}
	}, s)
}

var (
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// shape strips pointers; a type that decodes itself has no shape to compare with.
func shape(t reflect.Type) reflect.Type {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil || t.Kind() == reflect.Interface {
		return nil
	}
	if p := reflect.PointerTo(t); p.Implements(jsonUnmarshaler) || p.Implements(textUnmarshaler) {
		return nil
	}
	return t
}

var rawMessage = reflect.TypeFor[json.RawMessage]()

func mayBeNull(t reflect.Type) bool {
	if t == nil || t == rawMessage {
		return true
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Map:
		return true
	}
	return t.Kind() == reflect.Slice && !reflect.PointerTo(t).Implements(textUnmarshaler)
}
