package tensorboard

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// masked is the sum of TFRecord: a CRC of data that holds CRCs says little, so it is rotated
// and moved.
func masked(b []byte) uint32 {
	c := crc32.Checksum(b, castagnoli)
	return (c>>15 | c<<17) + 0xa282ead8
}

// frame puts a message into a TFRecord: its length, the length's sum, the message, its sum.
func frame(message []byte) []byte {
	out := binary.LittleEndian.AppendUint64(make([]byte, 0, len(message)+16), uint64(len(message)))
	out = binary.LittleEndian.AppendUint32(out, masked(out))
	out = append(out, message...)
	return binary.LittleEndian.AppendUint32(out, masked(message))
}

// Fields of tensorflow.Event and what it holds, as event.proto, summary.proto and
// tensor.proto number them.
const (
	eventWallTime    = 1
	eventStep        = 2
	eventFileVersion = 3
	eventSummary     = 5
	eventSessionLog  = 7

	sessionStatus = 1
	sessionStart  = 1 // SessionLog.START

	summaryValue = 1

	valueTag      = 1
	valueSimple   = 2
	valueTensor   = 8
	valueMetadata = 9

	metadataPlugin = 1
	metadataClass  = 4
	pluginName     = 1
	classTensor    = 2 // DATA_CLASS_TENSOR

	tensorType   = 1
	tensorShape  = 2
	tensorString = 8
	typeString   = 7 // DT_STRING
	shapeDim     = 2
	dimSize      = 1
)

func double(b []byte, field protowire.Number, v float64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(b, field, protowire.Fixed64Type), math.Float64bits(v))
}

func varint(b []byte, field protowire.Number, v int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), uint64(v))
}

func bytes[T string | []byte](b []byte, field protowire.Number, v T) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), string(v))
}

// event returns an Event that holds what at a step.
func event(when time.Time, step int64, field protowire.Number, what []byte) []byte {
	b := double(nil, eventWallTime, float64(when.UnixNano())/1e9)
	if step != 0 {
		b = varint(b, eventStep, step)
	}
	return bytes(b, field, what)
}

// scalar returns a Value that is a number.
func scalar(tag string, v float64) []byte {
	b := bytes(nil, valueTag, tag)
	b = protowire.AppendTag(b, valueSimple, protowire.Fixed32Type)
	return protowire.AppendFixed32(b, math.Float32bits(float32(v)))
}

// text returns a Value that is a list of texts, as the text plugin takes it. They are read
// as Markdown.
func text(tag string, texts ...string) []byte {
	plugin := bytes(nil, pluginName, "text")
	metadata := varint(bytes(nil, metadataPlugin, plugin), metadataClass, classTensor)
	tensor := varint(nil, tensorType, typeString)
	tensor = bytes(tensor, tensorShape, bytes(nil, shapeDim, varint(nil, dimSize, int64(len(texts)))))
	for _, t := range texts {
		tensor = bytes(tensor, tensorString, t)
	}
	return bytes(bytes(bytes(nil, valueTag, tag), valueTensor, tensor), valueMetadata, metadata)
}
