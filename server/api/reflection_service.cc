#include "server/api/reflection_service.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>

#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace kv::api {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;
using grpc::reflection::v1::ExtensionRequest;
using grpc::reflection::v1::FileDescriptorResponse;

const DescriptorPool& Pool() { return *DescriptorPool::generated_pool(); }

// The file after those that it imports, each once.
void AddFile(const FileDescriptor& file, std::set<const FileDescriptor*>* seen,
             FileDescriptorResponse* files) {
  if (!seen->insert(&file).second) return;
  for (int i = 0; i < file.dependency_count(); ++i) AddFile(*file.dependency(i), seen, files);
  google::protobuf::FileDescriptorProto proto;
  file.CopyTo(&proto);
  files->add_file_descriptor_proto(proto.SerializeAsString());
}

const FileDescriptor* FileOfExtension(const ExtensionRequest& request) {
  const Descriptor* type = Pool().FindMessageTypeByName(request.containing_type());
  if (type == nullptr) return nullptr;
  const FieldDescriptor* extension = Pool().FindExtensionByNumber(type, request.extension_number());
  return extension == nullptr ? nullptr : extension->file();
}

void SetError(absl::StatusCode code, std::string text, ReflectionService::Response* response) {
  response->mutable_error_response()->set_error_code(static_cast<int>(code));
  response->mutable_error_response()->set_error_message(std::move(text));
}

void SetFile(const FileDescriptor* file, const std::string& asked,
             ReflectionService::Response* response) {
  if (file == nullptr) {
    return SetError(absl::StatusCode::kNotFound, "not found: " + asked, response);
  }
  std::set<const FileDescriptor*> seen;
  FileDescriptorResponse* files = response->mutable_file_descriptor_response();
  AddFile(*file, &seen, files);
  // Some tools take the first file for the one that they asked for.
  for (int i = 0, j = files->file_descriptor_proto_size() - 1; i < j; ++i, --j) {
    files->mutable_file_descriptor_proto()->SwapElements(i, j);
  }
}

}  // namespace

void ReflectionService::Info(Reader<Request>* reader, Writer<Response>* writer) const {
  reader->Read([this, reader, writer](std::optional<Request> request) {
    if (!request) return writer->Finish(absl::OkStatus());
    writer->Write(Answer(*request), [this, reader, writer](bool taken) {
      if (!taken) return writer->Finish(absl::CancelledError());
      Info(reader, writer);
    });
  });
}

ReflectionService::Response ReflectionService::Answer(const Request& request) const {
  Response response;
  response.set_valid_host(request.host());
  *response.mutable_original_request() = request;
  switch (request.message_request_case()) {
    case Request::kFileByFilename:
      SetFile(Pool().FindFileByName(request.file_by_filename()), request.file_by_filename(),
              &response);
      break;
    case Request::kFileContainingSymbol:
      SetFile(Pool().FindFileContainingSymbol(request.file_containing_symbol()),
              request.file_containing_symbol(), &response);
      break;
    case Request::kFileContainingExtension:
      SetFile(FileOfExtension(request.file_containing_extension()),
              request.file_containing_extension().containing_type(), &response);
      break;
    case Request::kAllExtensionNumbersOfType: {
      const std::string& name = request.all_extension_numbers_of_type();
      const Descriptor* type = Pool().FindMessageTypeByName(name);
      if (type == nullptr) {
        SetError(absl::StatusCode::kNotFound, "not found: " + name, &response);
        break;
      }
      response.mutable_all_extension_numbers_response()->set_base_type_name(name);
      std::vector<const FieldDescriptor*> extensions;
      Pool().FindAllExtensions(type, &extensions);
      for (const FieldDescriptor* extension : extensions) {
        response.mutable_all_extension_numbers_response()->add_extension_number(
            extension->number());
      }
      break;
    }
    case Request::kListServices:
      for (const std::string& name : names_) {
        response.mutable_list_services_response()->add_service()->set_name(name);
      }
      break;
    case Request::MESSAGE_REQUEST_NOT_SET:
      SetError(absl::StatusCode::kInvalidArgument, "the request asks nothing", &response);
  }
  return response;
}

}  // namespace kv::api
