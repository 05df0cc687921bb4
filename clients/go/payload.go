package lineshaft

import (
	"encoding/json"
	"fmt"
	"mime"
	"strings"
	"unicode/utf8"

	lineshaftv1 "github.com/lineshaft/lineshaft/clients/go/lineshaftv1"
)

const (
	contentTypeJSON  = "application/json"
	contentTypeBytes = "application/octet-stream"
)

// Payload is bytes with a content type: a payload or result that is neither bytes nor JSON.
type Payload struct {
	Data        []byte
	ContentType string
}

// Decode stores the content in the value that `into` points to: JSON with [json.Unmarshal], text in a *string, any content in
// a *[]byte, *Payload or *any. An empty content leaves the value as it is.
func (p Payload) Decode(into any) error {
	kind, _, _ := mime.ParseMediaType(p.ContentType)
	switch into := into.(type) {
	case *Payload:
		*into = p
		return nil
	case *[]byte:
		*into = p.Data
		return nil
	case *string:
		if strings.HasPrefix(kind, "text/") {
			*into = string(p.Data)
			return nil
		}
	case *any:
		if len(p.Data) > 0 && kind != contentTypeJSON {
			*into = p.Data
			return nil
		}
	}
	if len(p.Data) == 0 {
		return nil
	}
	if kind != contentTypeJSON {
		return fmt.Errorf("content type is %q, must be %s; decode it into a *[]byte", p.ContentType, contentTypeJSON)
	}
	return json.Unmarshal(p.Data, into)
}

// encode returns bytes as they are, and any other value as JSON.
func encode(value any) (*lineshaftv1.Payload, error) {
	switch value := value.(type) {
	case nil:
		return nil, nil
	case Payload:
		if !utf8.ValidString(value.ContentType) {
			return nil, fmt.Errorf("content type %q is not valid UTF-8", value.ContentType)
		}
		return message(value.Data, value.ContentType), nil
	case []byte:
		return message(value, contentTypeBytes), nil
	}
	data, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("encode the payload: %w", err)
	}
	return message(data, contentTypeJSON), nil
}

func message(data []byte, contentType string) *lineshaftv1.Payload {
	return &lineshaftv1.Payload{Kind: &lineshaftv1.Payload_Data{Data: data}, ContentType: contentType}
}

func fromMessage(payload *lineshaftv1.Payload) Payload {
	return Payload{Data: payload.GetData(), ContentType: payload.GetContentType()}
}
