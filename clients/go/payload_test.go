package lineshaft_test

import (
	"reflect"
	"testing"

	lineshaft "github.com/lineshaft/lineshaft/clients/go"
)

func TestPayloadsAreDecodedByTheirContentType(t *testing.T) {
	binary := lineshaft.Payload{Data: []byte{1, 2}, ContentType: "application/octet-stream"}
	text := lineshaft.Payload{Data: []byte("hello"), ContentType: "text/plain; charset=utf-8"}
	json := lineshaft.Payload{Data: []byte(`{"a":"b"}`), ContentType: "application/json; charset=utf-8"}
	empty := lineshaft.Payload{}
	type object struct{ A string }
	for _, test := range []struct {
		payload lineshaft.Payload
		into    any
		want    any // nil: an error
	}{
		{binary, new([]byte), []byte{1, 2}},
		{binary, new(lineshaft.Payload), binary},
		{binary, new(any), any([]byte{1, 2})},
		{binary, new(string), nil},
		{binary, new(object), nil},
		{text, new(string), "hello"},
		{text, new([]byte), []byte("hello")},
		{text, new(object), nil},
		{json, new(object), object{"b"}},
		{json, new([]byte), []byte(`{"a":"b"}`)},
		{json, new(any), map[string]any{"a": "b"}},
		{json, new(int), nil},
		{empty, new(object), object{}},
		{empty, new(string), ""},
		{empty, new([]byte), []byte(nil)},
	} {
		err := test.payload.Decode(test.into)
		got := reflect.ValueOf(test.into).Elem().Interface()
		if test.want == nil && err == nil {
			t.Errorf("%v decoded into %T returned %v", test.payload, test.into, got)
		}
		if test.want != nil && (err != nil || !reflect.DeepEqual(got, test.want)) {
			t.Errorf("%v decoded into %T returned %v, %v", test.payload, test.into, got, err)
		}
	}
}
