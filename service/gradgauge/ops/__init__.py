"""The op table: functions named as ONNX names them."""
