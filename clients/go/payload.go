package lineshaft

import (
	"encoding/json"
	"fmt"
	"mime"

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

// Decode stores the content in the value that `into` points to: JSON with [json.Unmarshal], any content in a *[]byte or
// *Payload. An empty content leaves the value as it is.
func (p Payload) Decode(into any) error {
	switch into := into.(type) {
	case *Payload:
		*into = p
		return nil
	case *[]byte:
		*into = p.Data
		return nil
	}
	if len(p.Data) == 0 {
		return nil
	}
	if kind, _, err := mime.ParseMediaType(p.ContentType); err != nil || kind != contentTypeJSON {
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
